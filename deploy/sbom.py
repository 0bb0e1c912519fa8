"""The bill of materials: ``python -m deploy.sbom FILE``, CycloneDX in JSON, without a network.

Belongs here: joining what the lock file pins (names, versions, hashes; packages of other
platforms too) with the licences that installed packages declare. Does not belong here: asking
whether any of them is known to be weak (``audit``).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements-deploy.lock"
"""All of what a deployment may install: the other run-time lock is a part of it."""

_OUTPUT: Final = ("--output-reproducible", "--no-validate", "--output-format", "JSON")


def bill(lock: Path, project: Path) -> dict[str, Any]:
    """The bill of ``lock``, with the licences of those packages that are installed here."""
    pinned = _cyclonedx("requirements", str(lock), "--pyproject", str(project))
    here = _cyclonedx("environment", sys.executable)
    named = (part for part in here["components"] if "purl" in part)  # a checkout has none
    licences = {part["purl"]: part.get("licenses") for part in named}
    for part in pinned["components"]:
        if found := licences.get(part["purl"]):
            part["licenses"] = found
        del part["description"]  # the line of the lock, word for word
    return pinned


def unlicensed(found: dict[str, Any]) -> list[str]:
    """Packages whose licence is not known here."""
    return [part["purl"] for part in found["components"] if not part.get("licenses")]


def _cyclonedx(command: str, *arguments: str) -> dict[str, Any]:
    """What the tool says of its input. Raises SystemExit."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bill.json"
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore::UserWarning", "-m", "cyclonedx_py", command),
                *(*arguments, *_OUTPUT, "--output-file", str(file)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"cyclonedx-py {command} failed: {done.stderr.strip()}")
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content


def validate(text: str) -> None:
    """Hold a bill against the schema of its version. Raises SystemExit."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"the bill is not CycloneDX: {problem}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the bill of materials.")
    parser.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    found = bill(LOCK, ROOT / "pyproject.toml")
    text = json.dumps(found, indent=1, sort_keys=True)
    validate(text)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(text, encoding="utf-8")
    unknown = unlicensed(found)
    print(f"{given.file}: {len(found['components'])} packages")
    if unknown:
        print(f"licence not known here of {len(unknown)}: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
