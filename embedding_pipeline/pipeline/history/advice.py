"""What the figures say could be cheaper. Nothing that they do not show.

Belongs here: one pure function a piece of advice, each with the figures behind it, and
none where they are too small to matter. Does not belong here: gathering or showing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from embedding_pipeline.pipeline.history.figures import History, Spending, cost_by
from embedding_pipeline.pipeline.words import size, usd

RECENT_DAYS: Final = 30
LEAST_SHARE: Final = 0.05
"""Of what was spent lately: less is not worth a person's time."""

LEAST_DUPLICATES: Final = 0.2
"""Share of a project's chunks that are copies."""

LEAST_CHUNKS: Final = 100
LEAST_NEAR: Final = 10
LEAST_BYTES: Final = 50 << 20


@dataclass(frozen=True)
class Advice:
    """One thing that could be cheaper.

    Attributes:
        topic: a stable word.
        title: what to consider, in a few words.
        text: the figures behind it, in sentences.
        saves_nano_usd: money it would have saved in the time looked at; None: not money.
        saves_bytes: storage it would save; None: not storage.
        evidence: the figures.
    """

    topic: str
    title: str
    text: str
    saves_nano_usd: int | None = None
    saves_bytes: int | None = None
    evidence: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Circumstances:
    """What is set, as far as advice depends on it.

    Attributes:
        batch_prices: nano-USD a token through the Batch API, by model that has one.
        batch_api: whether it is in use.
        shortens: spaces whose vectors can be shortened.
        price: nano-USD a token of the settings' model; None where unknown.
        overlap_tokens: the setting ``chunking.overlap_tokens``.
        near: whether near-duplicates are left out already, at the present threshold.
    """

    batch_prices: Mapping[str, int] = field(default_factory=dict)
    batch_api: bool = False
    shortens: frozenset[str] = frozenset()
    price: int | None = None
    overlap_tokens: int = 0
    near: bool = False


def advise(history: History, now: Circumstances) -> list[Advice]:
    """All advice there is, money first, the largest first."""
    found = [advice for rule in _RULES for advice in rule(history, now)]
    return sorted(found, key=lambda advice: (-(advice.saves_nano_usd or 0), advice.topic))


def _recent(history: History) -> list[Spending]:
    return history.since(history.today - timedelta(days=RECENT_DAYS - 1))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _batch_api(history: History, now: Circumstances) -> Iterator[Advice]:
    """Work for partitions that nobody waits for, at the price of work somebody does."""
    rows = _recent(history)
    total = sum(row.cost_nano_usd for row in rows)
    bulk = [row for row in rows if row.bulk and row.kind == "api" and row.model in now.batch_prices]
    paid = sum(row.cost_nano_usd for row in bulk)
    saves = paid - sum(row.tokens * now.batch_prices[row.model] for row in bulk)
    if now.batch_api or saves <= 0 or _share(paid, total) < LEAST_SHARE:
        return
    yield Advice(
        "batch_api",
        f"Use the Batch API for {_share(paid, total):.0%} of the spending",
        f"In the last {RECENT_DAYS} days {usd(paid)} of {usd(total)} went to requests for "
        f"partitions, which no caller waits for. Through the Batch API (results within 24 "
        f"hours) the same tokens cost {usd(paid - saves)}: {usd(saves)} less.",
        saves_nano_usd=saves,
        evidence={"bulk_nano_usd": paid, "total_nano_usd": total},
    )


def _duplicates(history: History, _now: Circumstances) -> Iterator[Advice]:
    """Projects that deliver the same text again and again."""
    for project in sorted({row.project for row in history.savings}):
        rows = [row for row in history.savings if row.project == project]
        chunks = sum(row.chunks for row in rows)
        copies = [row for row in rows if row.source == "duplicate"]
        number = sum(row.chunks for row in copies)
        if chunks < LEAST_CHUNKS or _share(number, chunks) < LEAST_DUPLICATES:
            continue
        saved = sum(row.saved_nano_usd for row in copies)
        yield Advice(
            "duplicates",
            f"{project} delivers {number / chunks:.0%} duplicates",
            f"{number:,} of {chunks:,} chunks of {project} are copies of others. "
            f"They were not embedded (that saved {usd(saved)}), but they are read, hashed and "
            "stored every time; look at where they come from.",
            evidence={"project": project, "duplicates": number, "chunks": chunks},
        )


def _near_copies(history: History, now: Circumstances) -> Iterator[Advice]:
    """Projects that pay for near copies, which a looser threshold would leave out."""
    near = history.near
    if near is None or now.price is None:
        return
    setting = f"dedup.threshold: {near.threshold:g}"
    setting = setting if now.near else f"dedup.near: true with {setting}"
    for project, chunks in sorted(near.chunks.items()):
        if chunks < LEAST_NEAR:
            continue
        saves = near.tokens[project] * now.price
        yield Advice(
            "near_duplicates",
            f"{project} pays for near duplicates",
            f"Of the days {near.days[0]} to {near.days[-1]}, {chunks:,} chunks that {project} "
            f"paid for ({near.tokens[project]:,} tokens, {usd(saves)}) are at least "
            f"{near.threshold:.0%} the same as another one. {setting} leaves them out. Whether "
            "they are copies to you, the figures cannot tell.",
            saves_nano_usd=saves,
            evidence={"project": project, "chunks": chunks, "tokens": near.tokens[project]},
        )


def _dimensions(history: History, now: Circumstances) -> Iterator[Advice]:
    """Files of vectors that could be shorter."""
    for row in history.stored:
        if row.space not in now.shortens or row.dimensions < 512:
            continue
        half = row.dimensions // 2
        saves = 4 * row.vectors * (row.dimensions - half)
        if saves < LEAST_BYTES:
            continue
        yield Advice(
            "dimensions",
            f"Vectors of {half} dimensions take half the space",
            f"{row.vectors:,} vectors of {row.space} at {row.dimensions} dimensions take "
            f"{size(row.file_bytes)} of files; at {half} it is {size(saves)} less. No request is "
            "needed for it (embedding.dimensions), nor for going back. What it does to your "
            "search results, the ledger cannot tell: measure it.",
            saves_bytes=saves,
            evidence={"space": row.space, "vectors": row.vectors, "dimensions": row.dimensions},
        )


def _overlap(history: History, now: Circumstances) -> Iterator[Advice]:
    """Text that is paid for twice because neighbouring chunks share it."""
    overlap = history.overlap
    if overlap is None or overlap.share < LEAST_SHARE:
        return
    cost = int(overlap.cost_nano_usd * overlap.share)
    yield Advice(
        "overlap",
        f"{overlap.share:.0%} of the tokens are overlap",
        f"Of {overlap.tokens:,} tokens of the chunks of {overlap.days[0]} to {overlap.days[-1]}, "
        f"{overlap.repeated_tokens:,} stand in the chunk before as well "
        f"(chunking.overlap_tokens: {now.overlap_tokens}). Of the {usd(overlap.cost_nano_usd)} "
        f"these days have cost, that is {usd(cost)}.",
        saves_nano_usd=cost,
        evidence={"tokens": overlap.tokens, "repeated_tokens": overlap.repeated_tokens},
    )


def _unknown(history: History, _now: Circumstances) -> Iterator[Advice]:
    """Money in doubt: answers that never arrived."""
    rows = _recent(history)
    total = sum(row.cost_nano_usd for row in rows)
    doubt = sum(row.unknown_nano_usd for row in rows)
    if _share(doubt, total) < LEAST_SHARE:
        return
    worst = next(
        iter(cost_by((row for row in rows if row.unknown_nano_usd), lambda row: row.model))
    )
    yield Advice(
        "unknown",
        f"{_share(doubt, total):.0%} of the spending brought nothing",
        f"In the last {RECENT_DAYS} days {usd(doubt)} of {usd(total)} were booked for requests "
        f"whose answer did not arrive or was not usable, most of it for {worst}. The attempts "
        "are in the metadata of the runs (retries); retry.timeout_seconds says how long an "
        "answer may take.",
        saves_nano_usd=doubt,
        evidence={"unknown_nano_usd": doubt, "total_nano_usd": total},
    )


_RULES: Final[tuple[Callable[[History, Circumstances], Iterator[Advice]], ...]] = (
    _batch_api,
    _duplicates,
    _near_copies,
    _dimensions,
    _overlap,
    _unknown,
)
