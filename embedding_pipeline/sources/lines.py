"""Bytes into lines, with a bound on what is held.

Belongs here: cutting blocks at line ends, the byte order mark, lines too long to
hold. Does not belong here: opening files (``places``), or what a line means (``formats``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_LINE_BYTES: Final = 64 * 2**20
"""A line longer than this is rejected without being loaded whole."""

_HEAD_BYTES: Final = 4096
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_OTHER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
"""Marks of UTF-16 (and UTF-32, little-endian): such a file has no line we can read."""


class BadFile(Exception):
    """A file cannot be read any further; becomes one ``Rejected`` where its rows are made.

    Attributes:
        reason: one stable word.
        content: what stood there, if anything is known.
    """

    def __init__(self, reason: str, content: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.content = content


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        number: counted from 1.
        data: its bytes without the line end; only the beginning if ``oversized``.
        ended: a line end followed. False at most for the last line of a file.
        oversized: it is longer than the bound.
    """

    number: int
    data: bytes
    ended: bool
    oversized: bool = False


class _Unfinished:
    """The line that is still being read; past the bound only its head is kept."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > self._bound:
            self._pieces = [b"".join(self._pieces)[:_HEAD_BYTES]]

    def take(self, number: int, *, ended: bool) -> Line:
        data, oversized = b"".join(self._pieces), self._size > self._bound
        self._pieces, self._size = [], 0
        return Line(number, data.removesuffix(b"\r"), ended, oversized)

    def __bool__(self) -> bool:
        return self._size > 0


def read_lines(blocks: Iterator[bytes], bound: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a file; they end in LF or CR LF.

    Whatever ``blocks`` raises passes through, after every line that was whole by then.
    """
    unfinished, number = _Unfinished(bound), 0
    for block in blocks:
        *whole, rest = block.split(b"\n")
        for piece in whole:
            number += 1
            unfinished.add(piece)
            yield unfinished.take(number, ended=True)
        unfinished.add(rest)
    if unfinished:
        yield unfinished.take(number + 1, ended=False)


def without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks without a UTF-8 byte order mark.

    Raises:
        BadFile: the file says that it is UTF-16 or UTF-32.
    """
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(_UTF8_MARK):
            break
    if head.startswith(_OTHER_MARKS):
        raise BadFile("not_utf8", head)
    yield head.removeprefix(_UTF8_MARK)
    yield from blocks
