"""One row: from the values that stood there to a ``Row``, or the word that says why not.

Belongs here: which values are acceptable, pure and without any file. Does not
belong here: reading (``formats``), or which day a row belongs to (``days``).
"""

import base64
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources.config import SourceFields

DEFAULT_PROJECT: Final = "default"
CONTENT_LIMIT: Final = 1000
"""Characters of a rejected row that are kept."""

_MAX_ORDINAL: Final = 2**31 - 1
_SHORT: Final = reprlib.Repr()
_SHORT.maxdict, _SHORT.maxstring = 20, CONTENT_LIMIT // 2


@dataclass(frozen=True, slots=True)
class Record:
    """What stood in one row, before anybody judged it.

    Attributes:
        location: file and line, or the like.
        values: its columns.
        raw: the bytes that stood there, where there are any.
    """

    location: str
    values: Mapping[str, object]
    raw: bytes | None = None

    def rejected(self, reason: str, row_id: str = "") -> Rejected:
        """This row, kept aside."""
        content = _SHORT.repr(dict(self.values)) if self.raw is None else self.raw
        return Rejected(self.location, row_id, reason, excerpt(content))


class _Unusable(Exception):
    """A value cannot be used; the argument is the reason."""


def to_row(record: Record, fields: SourceFields) -> Row | Rejected:
    """The row, or the first reason why it cannot be used.

    Reasons: ``no_id``, ``no_text`` (missing, empty or white space), ``wrong_type``,
    ``not_utf8`` (a lone surrogate), ``nul_byte``, ``too_deep`` (nested beyond reason).
    """
    values, row_id = record.values, ""
    try:
        row_id = _name(values.get(fields.id)) or _unusable("no_id")
        return Row(
            row_id=row_id,
            document_id=_name(values.get(fields.document_id)) or row_id,
            ordinal=_ordinal(values.get(fields.ordinal)) or 0,
            text=_text(values.get(fields.text)),
            project=_name(values.get(fields.project)) or DEFAULT_PROJECT,
            user=_name(values.get(fields.user)) or None,
            metadata=_rest(values, fields),
            location=record.location,
        )
    except _Unusable as exc:
        return record.rejected(str(exc), row_id)
    except RecursionError:
        return record.rejected("too_deep", row_id)


def text_problem(text: str) -> str | None:
    """Why a text cannot be used: ``no_text``, ``nul_byte``, ``not_utf8``; None if it can."""
    if not text or text.isspace():
        return "no_text"
    return _string_problem(text)


def excerpt(content: bytes | str) -> str:
    """The beginning of what stood there, with everything that is no UTF-8 replaced."""
    if isinstance(content, str):
        content = content[:CONTENT_LIMIT].encode("utf-8", "replace")
    return content[: 4 * CONTENT_LIMIT].decode("utf-8", "replace")[:CONTENT_LIMIT]


def plain(value: object) -> object:
    """The value as JSON can say it. Dates, decimals and the like become text; NaN is null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(inner) for inner in value]
        case _:
            return _as_text(value)


def day_of(value: object) -> date | None:
    """The day a date column names, or None. An instant with an offset counts in UTC.

    Accepts dates, datetimes, and text that begins as ISO 8601 (``2025-03-18``,
    ``2025-03-18T09:30:00+02:00``). Bare numbers are refused: their unit is anybody's guess.
    """
    if isinstance(value, str):
        value = _parsed(value.strip())
    if isinstance(value, datetime):
        return _utc_day(value)
    return value if isinstance(value, date) else None


def _parsed(text: str) -> date | datetime | None:
    # Checked first: fromisoformat also takes week dates and 20250318.
    if text[4:5] != "-" or text[7:8] != "-":
        return None
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        return None


def _utc_day(value: datetime) -> date | None:
    offset = value.utcoffset()
    try:
        return (value if offset is None else value - offset).date()
    except OverflowError:
        return None


def _as_text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _unusable(reason: str) -> str:
    raise _Unusable(reason)


def _string_problem(text: str) -> str | None:
    if "\0" in text:
        return "nul_byte"
    try:
        _ = text.isascii() or text.encode()
    except UnicodeEncodeError:
        return "not_utf8"
    return None


def _text(value: object) -> str:
    if value is None:
        _unusable("no_text")
    if not isinstance(value, str):
        return _unusable("wrong_type")
    problem = text_problem(value)
    return value if problem is None else _unusable(problem)


def _name(value: object) -> str:
    """An id or a name as text, "" if there is none. Whole numbers are as good as text."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return _unusable("wrong_type")
    name = str(value)
    problem = _string_problem(name)
    return name if problem is None else _unusable(problem)


def _ordinal(value: object) -> int | None:
    """The value as a position, or None: then the column means something else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_ORDINAL
    return value if usable and isinstance(value, int) else None


def _rest(values: Mapping[str, object], fields: SourceFields) -> dict[str, object]:
    """Every column that is not one of the row's own; the date and an odd ordinal are kept."""
    own = {fields.id, fields.document_id, fields.text, fields.project, fields.user}
    if _ordinal(values.get(fields.ordinal)) is not None:
        own.add(fields.ordinal)
    return {name: plain(value) for name, value in values.items() if name not in own}
