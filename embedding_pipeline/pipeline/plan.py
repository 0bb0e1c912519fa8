"""``plan``: what embedding some days would take, said before anything is spent.

Belongs here: the figures, and counting exactly what a run would send: the same steps, the
same input policy, the same cache. Does not belong here: where prices, limits and budgets
come from (``assembly``), or printing.

Nothing is written and no request is made. Memory holds 8 bytes a distinct text and a batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date
from typing import Final, Literal, Self, TypeAlias

import pyarrow as pa
from sqlalchemy import Connection

from embedding_pipeline.batch_api.decision import Verdict
from embedding_pipeline.cache import database
from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.pipeline.planned import Fresh, RequestCount
from embedding_pipeline.pipeline.representatives import Representatives
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Account, Digest, Space
from embedding_pipeline.service.preparing import InputRules, Prepared
from embedding_pipeline.state.store import Store

_WHO: Final = ("project", "user")
_COLUMNS: Final = ("text", "token_count", *_WHO)

Group: TypeAlias = Literal["partition", "project", "user"]


@dataclass(frozen=True)
class Known:
    """Which of some keys nothing would be sent for.

    Attributes:
        cached: they have a vector.
        refused: a provider refuses them, and nobody has asked for another try.
    """

    cached: frozenset[Digest] = frozenset()
    refused: frozenset[Digest] = frozenset()


Lookup: TypeAlias = Callable[[Sequence[Digest]], Awaitable[Known]]


@dataclass(frozen=True)
class Rates:
    """What may be sent a minute; None where no limit is known.

    ``tokens`` are counted as the API does: UTF-8 bytes / 4.
    """

    tokens: int | None = None
    requests: int | None = None

    def seconds(self, tokens: int, requests: int) -> float | None:
        """How long this much takes at these rates; None where neither is known."""
        needs = ((tokens, self.tokens), (requests, self.requests))
        known = [60 * need / rate for need, rate in needs if rate]
        return max(known) if known else None


@dataclass(frozen=True)
class Figures:
    """What becomes of some chunks, and what it takes.

    ``representatives = to_embed + repeated + cached + refused`` always holds.

    Attributes:
        chunks: raw chunks.
        representatives: those left after deduplication.
        refused: blank, too long under the policy, or refused by the provider before.
        cached: their vector is there already.
        repeated: their text is in the range before, and is paid for there.
        to_embed: chunks something is sent for.
        input_tokens: tokens of what is sent (cl100k_base).
    """

    chunks: int = 0
    representatives: int = 0
    refused: int = 0
    cached: int = 0
    repeated: int = 0
    to_embed: int = 0
    input_tokens: int = 0

    def __add__(self, other: Self) -> "Figures":
        return Figures(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def duplicates(self) -> int:
        """Chunks that deduplication leaves out."""
        return self.chunks - self.representatives


@dataclass(frozen=True)
class SpendingPlan:
    """What embedding some days in one space would take.

    Attributes:
        space: the space.
        days: the days, in order.
        price: nano-USD a token, None where unknown.
        batch_price: the same through the Batch API; None where unknown or there is none.
        price_checked: the day the prices were read.
        figures: by project, user and partition.
        requests: calls, when all goes well.
        estimated_tokens: what is sent, as the API counts against its limits.
        rates: the limits at present.
        objections: budgets that do not allow it, a sentence each; None: no budget is set.
        verdict: whether a run would send it through the Batch API, and why; None: not asked.
    """

    space: Space
    days: tuple[str, ...]
    price: int | None
    batch_price: int | None
    price_checked: date
    figures: Mapping[Account, Figures]
    requests: int
    estimated_tokens: int
    rates: Rates
    objections: tuple[str, ...] | None = None
    verdict: Verdict | None = None

    @property
    def total(self) -> Figures:
        """Everything."""
        return sum(self.figures.values(), Figures())

    @property
    def cost_nano_usd(self) -> int | None:
        """What it would cost, one request at a time; None where the price is unknown."""
        return cost(self.total.input_tokens, self.price)

    @property
    def batch_cost_nano_usd(self) -> int | None:
        """What it would cost through the Batch API; None where that is unknown."""
        return cost(self.total.input_tokens, self.batch_price)

    @property
    def chosen_price(self) -> int | None:
        """nano-USD a token, the way a run would send it."""
        batch = self.verdict is not None and self.verdict.way == "batch"
        return self.batch_price if batch else self.price

    @property
    def chosen_cost_nano_usd(self) -> int | None:
        """What it would cost, the way a run would send it; None where that is unknown."""
        return cost(self.total.input_tokens, self.chosen_price)

    @property
    def seconds(self) -> float | None:
        """How long the requests take at the present limits; None where none is known."""
        return self.rates.seconds(self.estimated_tokens, self.requests)

    @property
    def allowed(self) -> bool:
        """Whether no budget is in the way."""
        return not self.objections

    def by(self, *groups: Group) -> dict[tuple[str, ...], Figures]:
        """Figures summed by some of an account's attributes, in their order."""
        sums: dict[tuple[str, ...], Figures] = {}
        for account, figures in self.figures.items():
            key = tuple(str(getattr(account, group)) for group in groups)
            sums[key] = sums.get(key, Figures()) + figures
        return dict(sorted(sums.items()))


def cost(tokens: int, price: int | None) -> int | None:
    """nano-USD of some tokens; nothing costs nothing, at any price."""
    return tokens * price if price is not None and tokens else None if tokens else 0


@dataclass(frozen=True)
class PlanParts:
    """What planning works with.

    Attributes:
        representatives: where the chunks come from; open.
        lookup: says which keys nothing is sent for.
        rules: the policy for text the API would refuse.
        caps: what one request may hold.
        spec: the model.
    """

    representatives: Representatives
    lookup: Lookup
    rules: InputRules
    caps: RequestCaps
    spec: ModelSpec


async def build_plan(parts: PlanParts, days: Sequence[str], rates: Rates) -> SpendingPlan:
    """Plan ``days`` in ascending order, without regard to budgets.

    A text that several days or projects hold is counted once, where a run meets it first.

    Raises:
        DataError: a dataset that is there is damaged.
        SourceError: a day that was not made yet cannot be read.
        StateError: the cache cannot be asked.
    """
    draft = _Draft(parts)
    for day in days:
        await draft.add(day)
    return SpendingPlan(
        space=parts.spec.space,
        days=tuple(days),
        price=parts.spec.nano_usd_per_token,
        batch_price=parts.spec.batch_nano_usd_per_token,
        price_checked=parts.spec.price_checked,
        figures=draft.figures(),
        requests=draft.requests.finish(),
        estimated_tokens=draft.estimated,
        rates=rates,
    )


class _Draft:
    """A plan while it is being counted."""

    def __init__(self, parts: PlanParts) -> None:
        self._parts = parts
        self._tallies: dict[Account, dict[str, int]] = {}
        self._fresh = Fresh()
        self.requests = RequestCount(parts.caps)
        self.estimated = 0

    def figures(self) -> dict[Account, Figures]:
        ordered = sorted(
            self._tallies, key=lambda account: (account.partition, account.project, account.user)
        )
        return {account: Figures(**self._tallies[account]) for account in ordered}

    async def add(self, day: str) -> None:
        """Count one day."""
        representatives = self._parts.representatives
        batches = representatives.of(day, _COLUMNS)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            accounts = _accounts(batch, day)
            prepared = await asyncio.to_thread(self._prepare, batch, accounts)
            known = await self._parts.lookup([item.digest for item in prepared.items])
            self._count(accounts, prepared, known)
        raw = representatives.raw(day, _WHO)
        while (batch := await asyncio.to_thread(next, raw, None)) is not None:
            for account in _accounts(batch, day):
                self._tally(account)["chunks"] += 1

    def _prepare(self, batch: pa.RecordBatch, accounts: Sequence[Account]) -> Prepared:
        tokens = batch.column("token_count").to_numpy()
        return self._parts.rules.prepare(batch.column("text").to_pylist(), tokens, accounts)

    def _count(self, accounts: Sequence[Account], prepared: Prepared, known: Known) -> None:
        """Decide what becomes of each chunk; the keys that are sent are added up."""
        fates: dict[int, str] = dict.fromkeys(range(len(accounts)), "cached")
        fates.update(dict.fromkeys(prepared.refused, "refused"))
        for row, item in zip(prepared.rows, prepared.items, strict=True):
            if item.digest in known.refused:
                fates[row] = "refused"
            elif item.digest in known.cached:
                continue
            elif self._fresh.add(item.digest):
                self._tally(item.account)["input_tokens"] += item.tokens
                self.estimated += item.estimate
                self.requests.add(item.tokens, item.estimate)
                fates[row] = "to_embed" if fates[row] != "refused" else "refused"
            elif fates[row] == "cached":
                fates[row] = "repeated"
        for row, fate in fates.items():
            tally = self._tally(accounts[row])
            tally["representatives"] += 1
            tally[fate] += 1

    def _tally(self, account: Account) -> dict[str, int]:
        tally = self._tallies.get(account)
        if tally is None:
            tally = self._tallies[account] = dict.fromkeys(_NAMES, 0)
        return tally


_NAMES: Final = tuple(field.name for field in fields(Figures))


def _accounts(batch: pa.RecordBatch, day: str) -> list[Account]:
    pairs: Iterable[tuple[str, str | None]] = zip(
        *(batch.column(name).to_pylist() for name in _WHO), strict=True
    )
    made: dict[tuple[str, str | None], Account] = {}
    return [
        made.get(pair) or made.setdefault(pair, Account(pair[0], pair[1] or "", day))
        for pair in pairs
    ]


def looking_up(store: Store, space: Space) -> Lookup:
    """Asks the durable cache and the quarantine of ``space``; a space nobody used is empty."""

    async def lookup(digests: Sequence[Digest]) -> Known:
        return await store.read(lambda connection: _known(connection, space, digests))

    return lookup


async def nothing_known(_digests: Sequence[Digest]) -> Known:
    """The lookup where there is no store yet."""
    return Known()


def _known(connection: Connection, space: Space, digests: Sequence[Digest]) -> Known:
    number = database.find_space(connection, space)
    if number is None:
        return Known()
    distinct = list(dict.fromkeys(digests))
    cached = database.existing(connection, number, distinct)
    rest = [digest for digest in distinct if digest not in cached]
    return Known(frozenset(cached), frozenset(quarantine.lasting(connection, number, rest)))
