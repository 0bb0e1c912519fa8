"""Splitting one document by tokens at the best boundaries there are.

Belongs here: driving semantic-text-splitter. Does not belong here: batches, counting
for the books (``batches``).

The splitter asks our own counter for every length, so the bound holds by the same
count that plans and prices requests; with toktok behind it that also needs a tenth of
the CPU of the tokenizer compiled into the splitter (47 against 500 ms a megabyte of
English at 512 tokens with an overlap of 64).

White space at the ends of a chunk is trimmed (MarkdownSplitter keeps indentation that
means something); apart from that the chunks together hold the whole document.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.tokens import TokenCounter

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

MAX_STRETCH: Final = 2**15
"""Characters split at once. Word boundaries in scripts without spaces take time that grows
with the square of an uninterrupted run: 9 s for 200,000 characters, 0.3 s for this many."""

_BREAKS: Final = ("\n\n", "\n", " ")

Markup = Literal["text", "markdown"]


class Splitter:
    """Splits documents into chunks of at most ``config.max_tokens`` tokens.

    Args:
        config: how long chunks may be, and how much they may repeat.
        counter: what counts tokens.
    """

    def __init__(self, config: ChunkingConfig, counter: TokenCounter) -> None:
        self._config = config
        self._counter = counter
        self._splitters: dict[Markup, TextSplitter | MarkdownSplitter] = {}

    def split(self, text: str, markup: Markup = "text") -> Iterator[str]:
        """The chunks of a document in order; none of them is blank."""
        for stretch in _stretches(text):
            if self._fits(stretch):
                yield stretch
            else:
                chunks = self._splitter(markup).chunks(stretch)
                # What Unicode calls a control character, Python may call white space.
                yield from (chunk for chunk in chunks if not chunk.isspace())

    def _fits(self, text: str) -> bool:
        # A token is at least one byte, so most short texts need no counting.
        most = self._config.max_tokens
        return (text.isascii() and len(text) <= most) or self._tokens(text) <= most

    def _tokens(self, text: str) -> int:
        return int(self._counter.count((text,))[0])

    def _splitter(self, markup: Markup) -> "TextSplitter | MarkdownSplitter":
        if markup not in self._splitters:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter

            kind = MarkdownSplitter if markup == "markdown" else TextSplitter
            self._splitters[markup] = kind.from_callback(
                self._tokens, self._config.max_tokens, self._config.overlap_tokens
            )
        return self._splitters[markup]


def _stretches(text: str) -> Iterator[str]:
    """The text in parts of bounded length, cut between paragraphs where possible."""
    start = 0
    while start < len(text):
        end = _cut(text, start)
        stretch = text[start:end].strip()
        if stretch:
            yield stretch
        start = end


def _cut(text: str, start: int) -> int:
    limit = start + MAX_STRETCH
    if limit >= len(text):
        return len(text)
    middle = start + MAX_STRETCH // 2
    ends = (text.rfind(mark, middle, limit) for mark in _BREAKS)
    return next((end + 1 for end in ends if end > 0), limit)
