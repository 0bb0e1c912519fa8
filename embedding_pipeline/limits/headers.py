"""What ``x-ratelimit-*`` headers say, as numbers.

Belongs here: reading them, doubtfully. Does not belong here: believing them (``buckets``).
"""

import re
from collections.abc import Mapping
from typing import Final

MISSING: Final = -1
_NUMBER: Final = re.compile(r"\d{1,12}")


def limits_and_remaining(headers: Mapping[str, str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Limits a minute and what remains, each as ``(tokens, requests)``; -1 where not said.

    A project may have a limit below its organization's: the lower one counts.

    Args:
        headers: by lower-case name.
    """
    names = ("tokens", "project-tokens"), ("requests", "project-requests")
    limits = [_least(headers, "limit", kinds) for kinds in names]
    remaining = [_least(headers, "remaining", kinds) for kinds in names]
    return (limits[0], limits[1]), (remaining[0], remaining[1])


def _least(headers: Mapping[str, str], what: str, kinds: tuple[str, ...]) -> int:
    found = (headers.get(f"x-ratelimit-{what}-{kind}", "").strip() for kind in kinds)
    return min((int(text) for text in found if _NUMBER.fullmatch(text)), default=MISSING)
