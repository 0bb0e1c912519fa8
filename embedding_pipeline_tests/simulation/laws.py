"""What must hold at every moment, whatever happened: the invariants, read off the raw tables.

Belongs here: checks by arithmetic of their own, after every transaction, every bill and every
request that leaves. Does not belong here: making anything happen.

The names I1 to I12 are those of the design: I1 right vectors, I2 caps, I3 budgets, I4 paid at
most once more, I5 nothing asked for twice, I6 whole files, I7 poison costs itself, I8 the rate
limit, I9 nobody waits for ever (the machine's own bound), I10 spaces apart, I11 the window,
I12 no text in store or log.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import cache

from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.ledger.periods import window_of
from embedding_pipeline.records import Digest, digest_of
from embedding_pipeline_tests.service.harness import MAX_TOKENS
from embedding_pipeline_tests.simulation.api import Api, Call
from embedding_pipeline_tests.simulation.disk import Disk
from embedding_pipeline_tests.simulation.seeds import SECRET, Story


class Broken(AssertionError):
    """A law was broken; the message begins with its name."""


def require(law: str, holds: bool, *words: object) -> None:
    """Raise ``Broken`` unless it holds."""
    if not holds:
        raise Broken(f"{law}: " + " ".join(map(str, words)))


@dataclass
class Books:
    """The ledger added up as it grows.

    Attributes:
        entries: seen so far.
        tokens: of all entries, by space.
        settled: of the settled ones.
        spent: nano-USD by budget and the start of its period.
    """

    entries: int = 0
    tokens: Counter[int] = field(default_factory=Counter)
    settled: Counter[int] = field(default_factory=Counter)
    spent: Counter[tuple[int, int]] = field(default_factory=Counter)


class Laws:
    """The laws of one story.

    Args:
        story: what happens.
        disk: the store, seen from outside.
        apis: the providers.
    """

    def __init__(self, story: Story, disk: Disk, apis: Sequence[Api]) -> None:
        self._story = story
        self._raw: sqlite3.Connection = disk.raw
        self._apis = apis
        self.books = Books()
        self.stopped = 0
        texts = {chunk.text for chunks in story.days.values() for chunk in chunks}
        for worker in story.workers:
            texts.update(getattr(worker.work, "texts", ()))
        self._sizes = {digest_of(text): len(text) for text in texts}
        disk.after.append(self.after_write)
        for api in apis:
            api.on_send.append(self.on_send)
            api.on_bill.append(self.on_books)

    def after_write(self) -> None:
        """After every transaction."""
        self._add_up()
        self.on_books()
        self._within_budgets()
        self._paid_once()

    def on_books(self) -> None:
        """I4: whatever was billed is booked, or is of a flight that is on the books."""
        out = sum(
            _tokens_in(shares) for (shares,) in self._raw.execute("SELECT shares FROM flights")
        )
        billed, booked = sum(api.billed for api in self._apis), self.books.tokens.total()
        require("I4", booked + out >= billed, billed, "billed,", booked, "booked,", out, "out")

    def on_send(self, call: Call) -> None:
        """I2, I4, I5, I11: what leaves is within the caps, claimed, and not stored yet."""
        story = self._story
        require("I2", len(call.texts) <= story.max_inputs, len(call.texts), "texts")
        require("I2", all(len(text) <= MAX_TOKENS for text in call.texts), "a text too long")
        require("I2", call.tokens <= story.request_tokens, call.tokens, "tokens in a request")
        require("I5", len(set(call.texts)) == len(call.texts), "a text twice in a request")
        if call.process.stops:
            return  # it may have been taken for dead meanwhile
        number = self._space(str(call.space))
        for text in call.texts:
            self._claimed(number, digest_of(text), call.process.pid)

    def _claimed(self, space: int, digest: Digest, pid: int) -> None:
        key = (space, digest)
        stored = "SELECT 1 FROM vectors WHERE space_id = ? AND digest = ?"
        there = self._raw.execute(stored, key).fetchone()
        # One that stood still and wakes may store what another asks for by then.
        require("I5", there is None or self.stopped > 0, "bought though stored")
        owner = (
            "SELECT o.pid FROM claims c JOIN flights f ON f.id = c.flight_id "
            "JOIN owners o ON o.id = f.owner_id WHERE c.space_id = ? AND c.digest = ?"
        )
        found = self._raw.execute(owner, key).fetchone()
        require("I4", found == (pid,), "sent by", pid, "though claimed by", found)

    def _add_up(self) -> None:
        query = "SELECT id, at, project, user, space_id, tokens, cost_nano_usd, outcome FROM ledger"
        rows = self._raw.execute(f"{query} WHERE id > ? ORDER BY id", (self.books.entries,))
        for entry, at, project, user, space, tokens, cost, outcome in rows:
            self.books.entries += 1
            require("I4", entry == self.books.entries, "an entry was taken out of the ledger")
            self.books.tokens[space] += tokens
            if outcome == "settled":
                self.books.settled[space] += tokens
            for index, budget in enumerate(self._story.budgets):
                if _concerns(budget, project, user):
                    self.books.spent[index, _start(budget, at)] += cost

    def _within_budgets(self) -> None:
        """I3: what is spent and reserved of every period of every budget is within it."""
        if not self._story.budgets:
            return
        held = Counter(self.books.spent)
        query = (
            "SELECT r.project, r.user, f.started_at, r.nano_usd FROM reservations r "
            "JOIN flights f ON f.id = r.flight_id"
        )
        for project, user, at, amount in self._raw.execute(query):
            for index, budget in enumerate(self._story.budgets):
                if _concerns(budget, project, user):
                    held[index, _start(budget, at)] += amount
        for (index, _), amount in held.items():
            budget = self._story.budgets[index]
            limit = budget.limit_nano
            require("I3", amount <= limit, amount, "of", limit, budget.scope, budget.period)

    def _paid_once(self) -> None:
        """I4: what is settled is what is stored, each text once; more after a standstill."""
        stored: Counter[int] = Counter()
        for space, digest in self._raw.execute("SELECT space_id, digest FROM vectors"):
            stored[space] += self._sizes[digest]
        if self.stopped or self._story.trouble.unclear:
            require("I4", self.books.settled >= stored, "stored and not paid", stored)
        else:
            require("I4", self.books.settled == stored, self.books.settled, "settled of", stored)

    def is_out(self, pid: int) -> bool:
        """Whether a process has a request on the books."""
        query = "SELECT 1 FROM flights f JOIN owners o ON o.id = f.owner_id WHERE o.pid = ?"
        return self._raw.execute(query, (pid,)).fetchone() is not None

    def kinds(self) -> set[str]:
        """What the books tell the census in the end."""
        told = {
            "work left for want of money": "SELECT 1 FROM deferred",
            "booked as unknown": "SELECT 1 FROM ledger WHERE outcome = 'unknown'",
        }
        return {kind for kind, query in told.items() if self._raw.execute(query).fetchone()}

    def at_rest(self) -> None:
        """Once everything has ended: nothing is left open, and nothing is made up."""
        for table in ("flights", "claims", "owners"):
            (count,) = self._raw.execute(f"SELECT count(*) FROM {table}").fetchone()
            require("I4", count == 0, count, "left in", table)
        billed = sum(api.billed for api in self._apis)
        settled = self.books.settled.total()
        require("I4", settled <= billed, settled, "settled of", billed, "billed")

    def keeps_secrets(self, messages: Sequence[str]) -> None:
        """I12: no text is in the store or in a log."""
        require("I12", SECRET.encode() not in self._raw.serialize(), "a text is in the store")
        require("I12", not any(SECRET in message for message in messages), "a text in a log")

    def held(self, space: str, day: str) -> set[str]:
        """Chunks of a day that are in quarantine."""
        return self._ids("quarantine", space, day)

    def deferred(self, space: str, day: str) -> set[str]:
        """Chunks of a day that are left for later."""
        return self._ids("deferred", space, day)

    def _ids(self, table: str, space: str, day: str) -> set[str]:
        query = f'SELECT chunk_id FROM {table} WHERE space_id = ? AND "partition" = ?'
        return {row[0] for row in self._raw.execute(query, (self._space(space), day))}

    def _space(self, name: str) -> int:
        query = "SELECT id FROM spaces WHERE name = ?"
        number: int = self._raw.execute(query, (name,)).fetchone()[0]
        return number


@cache
def _tokens_in(shares: str) -> int:
    return sum(share[3] for share in json.loads(shares))


@cache
def _start(budget: BudgetConfig, at: int) -> int:
    return window_of(budget.period, at, UTC).start_ms


def _concerns(budget: BudgetConfig, project: str, user: str) -> bool:
    kind, _, name = budget.scope.partition(":")
    return kind == "all" or name == (user if kind == "user" else project)
