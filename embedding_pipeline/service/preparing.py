"""From texts to keys: which parts of each text are looked up and sent.

Belongs here: applying the input policy and hashing, for one batch at a time. Does not
belong here: looking anything up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_pipeline.errors import TextRefused
from embedding_pipeline.planning.inputs import NO_DIRECTION, Policy, combine, fits, judge
from embedding_pipeline.records import Account, Vectors, digest_and_size, digest_of
from embedding_pipeline.service.work import Item, Refusal
from embedding_pipeline.tokens import TokenCounter, api_estimate, estimate_of


@dataclass(frozen=True)
class Prepared:
    """A batch of texts as keys.

    Attributes:
        items: one a key that is needed; a text that is cut has several or another one.
        rows: for each item the row it belongs to.
        refused: rows that nothing is sent for, and why.
        derived: rows whose vector is not made from exactly their text: how, and from
            how many parts.
    """

    items: Sequence[Item]
    rows: Sequence[int]
    refused: Mapping[int, Refusal]
    derived: Mapping[int, tuple[str, int]]


@dataclass(frozen=True)
class InputRules:
    """The policy for text the API would refuse, and how it is counted."""

    policy: Policy
    max_tokens: int
    counter: TokenCounter

    def prepare(
        self,
        texts: Sequence[str],
        tokens: npt.NDArray[np.int32],
        accounts: Sequence[Account],
    ) -> Prepared:
        """Decide on every text of a batch; no call has been made yet."""
        measured = list(map(digest_and_size, texts))
        digests = [digest for digest, _ in measured]
        estimates = estimate_of((size for _, size in measured), len(texts))
        good = fits(texts, tokens, estimates, self.max_tokens)
        counts = tokens.tolist(), estimates.tolist()
        each = map(Item._make, zip(digests, texts, *counts, accounts, strict=True))
        if good.all():  # as good as always
            return Prepared(list(each), range(len(texts)), {}, {})
        items: list[Item] = []
        rows: list[int] = []
        refused: dict[int, Refusal] = {}
        derived: dict[int, tuple[str, int]] = {}
        for row, (item, fit) in enumerate(zip(each, good.tolist(), strict=True)):
            if fit:
                items.append(item)
                rows.append(row)
                continue
            judgement = judge(item.text, self.policy, self.max_tokens, self.counter.truncate)
            if judgement.refused:
                refused[row] = Refusal(judgement.verdict)
                continue
            derived[row] = (judgement.verdict, len(judgement.parts))
            items.extend(self._parts(judgement.parts, accounts[row]))
            rows.extend([row] * len(judgement.parts))
        return Prepared(items, rows, refused, derived)

    def _parts(self, parts: Sequence[str], account: Account) -> list[Item]:
        counts = zip(parts, self.counter.count(parts), api_estimate(parts), strict=True)
        return [
            Item(digest_of(part), part, int(own), int(rough), account)
            for part, own, rough in counts
        ]


def whole(
    prepared: Prepared, parts: Mapping[int, npt.NDArray[np.float32] | None]
) -> npt.NDArray[np.float32]:
    """The vector of one row from those of its items, by their position in ``prepared.items``.

    A single part is taken as it is, bit by bit.

    Raises:
        ValueError: the parts cancel out.
    """
    vectors = [part for part in parts.values() if part is not None]
    if len(vectors) == 1:
        return vectors[0]
    weights = np.array([prepared.items[position].tokens for position in parts], np.int32)
    return combine(np.stack(vectors), weights)


def assemble(prepared: Prepared, parts: Sequence[npt.NDArray[np.float32]], width: int) -> Vectors:
    """The vector of every row from those of its items.

    Args:
        prepared: a batch without refused rows.
        parts: for each of its items the full vector, shape ``(width,)``.
        width: native dimensions.

    Returns:
        float32, shape ``(rows, width)``.

    Raises:
        TextRefused: the parts of a text cancel out.
    """
    rows: dict[int, dict[int, npt.NDArray[np.float32] | None]] = {}
    for position, row in enumerate(prepared.rows):
        rows.setdefault(row, {})[position] = parts[position]
    out = np.zeros((len(rows), width), np.float32)
    for row, own in rows.items():
        try:
            out[row] = whole(prepared, own)
        except ValueError as exc:
            raise TextRefused(NO_DIRECTION, f"text {row} cannot be embedded: {exc}") from exc
    return out
