"""Known weaknesses of what the lock files pin: ``python -m deploy.audit``; needs a network.

Belongs here: asking the OSV database by pip-audit, and a verdict that never mistakes silence
for safety: pip-audit ends well where a package could not be looked up, and with a traceback
where nobody answers. Does not belong here: the bill of materials (``sbom``).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKS: Final = ("requirements.lock", "requirements-deploy.lock", "requirements-dev.lock")
OSV_URL: Final = "https://api.osv.dev/v1/query"
TIMEOUT_SECONDS: Final = 15
WEAK: Final = 1
NOT_AUDITED: Final = 3


@dataclass(frozen=True)
class Verdict:
    """What is known of a lock file.

    Attributes:
        audited: how many packages were looked up.
        weak: packages with a known weakness: name, version, its ids, where it is mended.
        unknown: packages that could not be looked up.
        silence: why nobody was asked; "" where somebody was.
    """

    audited: int = 0
    weak: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    silence: str = ""

    @property
    def exit_code(self) -> int:
        """0 only where every package was looked up, and none is weak."""
        if self.weak:
            return WEAK
        return NOT_AUDITED if self.silence or self.unknown or not self.audited else 0

    def __str__(self) -> str:
        if self.silence:
            return f"NOT AUDITED, the database of weaknesses does not answer: {self.silence}"
        lines = [f"{self.audited} packages looked up, {len(self.weak)} with a known weakness"]
        lines += [f"  WEAK {one}" for one in self.weak]
        if self.unknown:
            lines.append(f"  NOT AUDITED: {', '.join(self.unknown)}")
        return "\n".join(lines)


def verdict(output: str, errors: str) -> Verdict:
    """Read what pip-audit said. Pure."""
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        return Verdict(silence=lines[-1][:300])
    looked_up = [one for one in found if "skip_reason" not in one]
    weak = []
    for one in looked_up:
        for weakness in one["vulns"]:
            mended = ", ".join(weakness["fix_versions"]) or "no version yet"
            weak.append(f"{one['name']} {one['version']}: {weakness['id']}, mended in {mended}")
    unknown = tuple(one["name"] for one in found if "skip_reason" in one)
    return Verdict(len(looked_up), tuple(weak), unknown)


def audit(lock: Path, url: str = OSV_URL, timeout: int = TIMEOUT_SECONDS) -> Verdict:
    """Look every package of a lock file up that is for this platform."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(lock)),
            *("--disable-pip", "--require-hashes", "--progress-spinner", "off"),
            *("--vulnerability-service", "osv", "--osv-url", url),
            *("--timeout", str(timeout), "--format", "json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return verdict(done.stdout, done.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Look the locked packages up in OSV.")
    parser.add_argument("--osv-url", default=OSV_URL)
    parser.add_argument("locks", nargs="*", type=Path, default=[ROOT / name for name in LOCKS])
    given = parser.parse_args(arguments)
    codes = []
    for lock in given.locks:
        found = audit(lock, given.osv_url)
        print(f"{lock.name}: {found}")
        codes.append(found.exit_code)
        if found.silence:  # nor would it answer the next time
            break
    return WEAK if WEAK in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
