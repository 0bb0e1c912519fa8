"""Counting tokens (cl100k_base, the vocabulary of every OpenAI embedding model).

Belongs here: the one small interface, its two implementations, and the estimate
by which OpenAI charges requests against its limits. Does not belong here: what
to do with a count (``planning``), or splitting (``chunking``).

tiktoken defines what a right count is; toktok-rs has the vocabulary inside, needs
an eighth of the CPU and no network, and therefore counts by default. The tests
hold the two together. They are known to differ by a token around characters that
were first assigned in Unicode 17, whose tables tiktoken does not have yet.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from embedding_pipeline.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    import tiktoken

ENCODING: Final = "cl100k_base"
VOCABULARY_URL: Final = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
"""The address whose sha1 is the name of the vocabulary in tiktoken's cache."""

VOCABULARY_SHA256: Final = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""The digest that tiktoken itself pins for this vocabulary."""

_NO_LIMIT: Final = 2**31 - 1

Counts = npt.NDArray[np.int32]
"""One count a text, shape ``(len(texts),)``."""


class TokenCounter(Protocol):
    """Counts and cuts by tokens.

    Text that looks like a special token (``<|endoftext|>``) is plain text. Texts must be
    encodable as UTF-8; what a lone surrogate does is undefined (sources reject them).
    """

    def count(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text, in order."""
        ...

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest prefix on a token and character boundary with at most ``max_tokens``."""
        ...


class ToktokCounter:
    """The default: toktok-rs, vocabulary compiled in.

    Args:
        threads: how many threads count one call's texts. One is enough for 100 MB/s
            and leaves the other cores to those who need them.
    """

    def __init__(self, threads: int = 1) -> None:
        import toktok

        self._toktok = toktok
        self._threads = threads

    def count(self, texts: Sequence[str]) -> Counts:
        return np.array(self._counts(texts), dtype=np.int32)

    def _counts(self, texts: Sequence[str]) -> list[int]:
        if len(texts) == 1:
            # Setting up a batch takes 25 µs, counting a chunk 2; a splitter asks one by one.
            return [self._toktok.truncate(texts[0], _NO_LIMIT, ENCODING)[1]]
        counts: list[int] = self._toktok.batch_count(texts, ENCODING, threads=self._threads)
        return counts

    def truncate(self, text: str, max_tokens: int) -> str:
        shorter, _ = self._toktok.truncate(text, max_tokens, ENCODING)
        return str(shorter)


class TiktokenCounter:
    """The reference: tiktoken, with the vocabulary from its cache and never from the network.

    Raises:
        MissingExtra: tiktoken is not installed.
        ConfigurationError: the vocabulary is not in tiktoken's cache.
    """

    def __init__(self) -> None:
        self._encoding = _cached_encoding()

    def count(self, texts: Sequence[str]) -> Counts:
        encode = self._encoding.encode_ordinary
        return np.fromiter((len(encode(text)) for text in texts), dtype=np.int32, count=len(texts))

    def truncate(self, text: str, max_tokens: int) -> str:
        tokens = self._encoding.encode_ordinary(text)
        if len(tokens) <= max_tokens:
            return text
        kept = self._encoding.decode_bytes(tokens[:max_tokens])
        return kept.decode("utf-8", errors="ignore")


def default_counter() -> TokenCounter:
    """The counter that works on every machine."""
    return ToktokCounter()


def api_estimate(texts: Sequence[str]) -> Counts:
    """Tokens as OpenAI estimates them before it has counted: UTF-8 bytes / 4, rounded up.

    The 300,000-token cap on a request and the tokens-per-minute bucket go by this, not by
    the tokens billed. ASCII texts, which CPython marks as such, are not encoded again.
    """
    sizes = (len(text) if text.isascii() else len(text.encode()) for text in texts)
    return estimate_of(sizes, len(texts))


def estimate_of(sizes: Iterable[int], count: int) -> Counts:
    """``api_estimate`` of ``count`` texts, given their UTF-8 bytes."""
    return -(-np.fromiter(sizes, dtype=np.int32, count=count) // 4)


def _cached_encoding() -> "tiktoken.Encoding":
    try:
        import tiktoken
    except ImportError as exc:
        raise MissingExtra("The reference token counter", "tiktoken") from exc
    _require_vocabulary(_tiktoken_cache())
    return tiktoken.get_encoding(ENCODING)


def _tiktoken_cache() -> Path:
    """Where tiktoken looks. The variables are tiktoken's own, so they are read as it does."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        folder = os.environ.get(name)  # noqa: TID251
        if folder is not None:
            return Path(folder)
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def _require_vocabulary(cache: Path) -> None:
    """Without this, tiktoken would go to the network, and hang where there is none."""
    file = cache / hashlib.sha1(VOCABULARY_URL.encode(), usedforsecurity=False).hexdigest()
    found = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == VOCABULARY_SHA256
    if not found:
        raise ConfigurationError(
            f"tiktoken's vocabulary {ENCODING} is not at {file}, and it is not downloaded from "
            f"here; run tiktoken once with a network, or set TIKTOKEN_CACHE_DIR to a folder "
            f"that holds it, or use the default counter"
        )
