"""What a check of ``doctor`` finds.

Belongs here: its form. Does not belong here: any check.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: ``fail`` means that work will not succeed until the remedy is applied.
        subject: what was looked at.
        message: what is the case.
        remedy: what to do, or "".
    """

    status: Status
    subject: str
    message: str
    remedy: str = ""
