"""What may be sent of each text, decided before any call.

Belongs here: the stated policy for text the API would refuse, and how the vectors of
parts become the vector of the whole. Does not belong here: grouping (``requests``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedding_pipeline.records import Vectors

Policy = Literal["reject", "truncate", "split_mean"]
Truncate = Callable[[str, int], str]
"""``(text, max_tokens) → longest prefix`` within that many tokens (``TokenCounter.truncate``)."""

BLANK = "blank"
TOO_LONG = "too_long"
NO_DIRECTION = "no_direction"

Verdict = Literal["fit", "blank", "too_long", "truncated", "split_mean"]


@dataclass(frozen=True)
class Judgement:
    """What becomes of one text.

    Attributes:
        verdict: ``fit``, a reason to refuse (``blank``, ``too_long``), or how the vector
            is derived (``truncated``, ``split_mean``).
        parts: the exact texts to send; empty when refused.
    """

    verdict: Verdict
    parts: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """The text cannot be embedded under this policy."""
        return not self.parts


def fits(
    texts: Sequence[str],
    tokens: npt.NDArray[np.int32],
    estimates: npt.NDArray[np.int32],
    limit: int,
) -> npt.NDArray[np.bool_]:
    """Which texts can be sent as they are, under both counts; shape ``(n,)``."""
    some = np.fromiter(map(bool, texts), np.bool_, len(texts))
    blank = np.fromiter(map(str.isspace, texts), np.bool_, len(texts))
    return some & ~blank & (np.maximum(tokens, estimates) <= limit)


def judge(text: str, policy: Policy, limit: int, truncate: Truncate) -> Judgement:
    """Decide on a text that does not fit (see ``fits``).

    Args:
        text: the text.
        policy: the setting ``requests.oversize``.
        limit: most tokens of one input, under both counts.
        truncate: cuts a text to a number of tokens.
    """
    if not text.strip():
        return Judgement("blank", ())
    if policy == "reject":
        return Judgement("too_long", ())
    if policy == "split_mean":
        return Judgement("split_mean", split_within(text, limit, truncate))
    prefix = prefix_within(text, limit, truncate)
    # A text that begins with pages of blanks has nothing to say before the cap.
    return Judgement("truncated", (prefix,)) if prefix.strip() else Judgement("too_long", ())


def prefix_within(text: str, limit: int, truncate: Truncate) -> str:
    """The longest prefix of at most ``limit`` tokens and ``4·limit`` UTF-8 bytes."""
    # A character is at least a byte: what is beyond 4·limit characters never gets in,
    # and a text of megabytes is not counted whole for every part.
    cut = truncate(text[: 4 * limit], limit)
    raw = cut.encode()
    if len(raw) <= 4 * limit:
        return cut
    # Cut inside a token, the end may have become more tokens than it was.
    return truncate(raw[: 4 * limit].decode(errors="ignore"), limit)


def split_within(text: str, limit: int, truncate: Truncate) -> tuple[str, ...]:
    """Cut the whole text into consecutive parts that each fit; blank parts are left out."""
    parts: list[str] = []
    start = 0
    while start < len(text):
        # A prefix can be empty only if one character is over the limit, which no limit
        # in use allows; taking one character keeps the loop finite all the same.
        window = text[start : start + 4 * limit]
        parts.append(prefix_within(window, limit, truncate) or window[:1])
        start += len(parts[-1])
    return tuple(part for part in parts if part.strip())


def combine(parts: Vectors, weights: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """The vector of a text made from parts: their weighted mean, of unit norm.

    Args:
        parts: shape ``(parts, dimensions)``.
        weights: tokens of each part, shape ``(parts,)``.

    Raises:
        ValueError: the mean has no direction (parts that cancel out).
    """
    mean = weights.astype(np.float64) @ parts.astype(np.float64)
    norm = float(np.linalg.norm(mean))
    if not norm > 1e-9 * float(weights.sum()):  # nor is NaN a direction
        raise ValueError("the parts cancel out: their mean has no direction")
    return np.asarray(mean / norm, dtype=np.float32)
