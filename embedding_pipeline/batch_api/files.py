"""What goes into one file, and what a line of it looks like.

Belongs here: the caps of a file and the bytes of a line, as pure functions. Does not belong
here: claiming keys or sending anything.

One text a line: a line fails as a whole, so a refused text costs itself alone, and a line
that comes back names its key. The provider counts inputs, not lines: no file holds fewer
texts for it.
"""

from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

from embedding_pipeline.records import Account, Digest

ENDPOINT: Final = "/v1/embeddings"

API_MOST_INPUTS: Final = 50_000
"""Embedding inputs in one batch, over all its lines (OpenAI's specification)."""

API_MOST_BYTES: Final = 200_000_000
"""Size of one file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One key to buy: the exact text to send and who pays for it."""

    digest: Digest
    text: str
    tokens: int
    estimate: int
    account: Account

    @property
    def weight(self) -> int:
        """Tokens by the higher of both counts: most it can be billed."""
        return max(self.tokens, self.estimate)


@dataclass(frozen=True)
class FileCaps:
    """What one file may hold.

    Attributes:
        max_inputs: texts.
        max_bytes: bytes.
        max_weight: tokens by the higher of both counts; a file alone must fit the queue.
    """

    max_inputs: int = API_MOST_INPUTS
    max_bytes: int = API_MOST_BYTES
    max_weight: int | None = None


@dataclass(frozen=True)
class FileSize:
    """What a file holds so far."""

    inputs: int = 0
    bytes: int = 0
    weight: int = 0

    def plus(self, line_bytes: int, weight: int) -> "FileSize":
        """With one line more."""
        return FileSize(self.inputs + 1, self.bytes + line_bytes, self.weight + weight)

    def within(self, caps: FileCaps) -> bool:
        """Whether no cap is broken. A single text always is a file of its own."""
        if self.inputs <= 1:
            return True
        light = caps.max_weight is None or self.weight <= caps.max_weight
        return light and self.inputs <= caps.max_inputs and self.bytes <= caps.max_bytes


EMPTY: Final = FileSize()


def custom_id(digest: Digest) -> str:
    """How a line names its key."""
    return digest.hex()


def request_line(model: str, wanted: Wanted) -> bytes:
    """The line that asks for one text's full vector, newline included."""
    body = {"model": model, "input": [wanted.text], "encoding_format": "base64"}
    line = {
        "custom_id": custom_id(wanted.digest),
        "method": "POST",
        "url": ENDPOINT,
        "body": body,
    }
    return to_json(line) + b"\n"
