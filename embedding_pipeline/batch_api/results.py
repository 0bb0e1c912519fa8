"""What a line of a result file says.

Belongs here: parsing one line into a key with its vector, or with why there is none. Pure.
Does not belong here: whether the key is still wanted, or what it is booked as.
"""

from dataclasses import dataclass
from typing import Any, Final

import jiter
import numpy as np
import numpy.typing as npt

from embedding_pipeline.embedders.policy import word
from embedding_pipeline.embedders.replies import Expected, decode_body
from embedding_pipeline.errors import InvalidReply
from embedding_pipeline.records import Digest

OK: Final = 200
UNREADABLE: Final = "unreadable"
UNTRUSTED: Final = "invalid_reply"


@dataclass(frozen=True)
class Delivered:
    """A key with its vector, shape ``(1, dimensions)``, and the tokens billed for it."""

    digest: Digest
    vector: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True)
class Failed:
    """A line without a vector.

    Attributes:
        digest: its key; None where even that cannot be read.
        code: a stable word.
        maybe_billed: a success that cannot be used: it may stand on the bill.
    """

    digest: Digest | None
    code: str
    maybe_billed: bool


def parse_line(line: bytes, expected: Expected) -> Delivered | Failed:
    """What a line of an output or error file says; never raises."""
    try:
        entry = jiter.from_json(line, cache_mode="keys")
    except (ValueError, RecursionError):
        return Failed(None, UNREADABLE, maybe_billed=True)
    digest = _digest(entry)
    if digest is None:
        return Failed(None, UNREADABLE, maybe_billed=True)
    response = entry.get("response")
    status = response.get("status_code") if isinstance(response, dict) else None
    if status != OK:
        # 0 is a line that was counted as completed all the same.
        return Failed(digest, _code(entry, response), maybe_billed=status == 0)
    assert isinstance(response, dict)
    try:
        vectors, usage, _ = decode_body(response.get("body"), expected)
    except InvalidReply:
        return Failed(digest, UNTRUSTED, maybe_billed=True)
    return Delivered(digest, vectors, usage.input_tokens)


def _digest(entry: object) -> Digest | None:
    name = entry.get("custom_id") if isinstance(entry, dict) else None
    try:
        raw = bytes.fromhex(name) if isinstance(name, str) else b""
    except ValueError:
        return None
    return Digest(raw) if len(raw) == len(Digest(bytes(32))) else None


def _code(entry: dict[str, Any], response: object) -> str:
    """The most telling word of an error; never its message."""
    body = response.get("body") if isinstance(response, dict) else None
    said = body.get("error") if isinstance(body, dict) else None
    for error in (entry.get("error"), said):
        if isinstance(error, dict):
            for key in ("code", "type"):
                if found := word(error.get(key)):
                    return found
    status = response.get("status_code") if isinstance(response, dict) else None
    return f"status_{word(status) or 'none'}"
