"""The money of one service: what of some keys it may buy now.

Belongs here: from items to amounts, and from a budget's no to words. Does not belong here:
the statements (``ledger.budgets``), or what becomes of keys that are left out
(``fetching``).

What a text can be billed at most is the higher of both token counts at the price of the
service. A bill above that would break every promise: then nothing more is bought.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from embedding_pipeline.errors import BudgetExceeded
from embedding_pipeline.ledger.affording import Ask, afford
from embedding_pipeline.ledger.budgets import Budgets, Payer, reserve, tell_exhausted
from embedding_pipeline.ledger.deferred import BUDGET
from embedding_pipeline.ledger.standing import Standing, dollars
from embedding_pipeline.records import Digest
from embedding_pipeline.service.work import Deferral, Item

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Admission:
    """What of some keys may be bought.

    Attributes:
        granted: those; money is reserved for them.
        waiting: there is no money as long as others have it reserved.
        refused: there is none in this period.
    """

    granted: Sequence[Item]
    waiting: Sequence[Item] = ()
    refused: dict[Digest, Deferral] = field(default_factory=dict)


class Purse:
    """Takes money from every budget that concerns an item, or from none."""

    def __init__(self, budgets: Budgets, price: int) -> None:
        self._budgets = budgets
        self._price = price
        self._stopped: Deferral | None = None
        self._seen: Sequence[Standing] = ()

    def most(self, item: Item) -> int:
        """nano-USD one text can be billed at most."""
        return max(item.tokens, item.estimate) * self._price

    def hopeless(self, items: Sequence[Item], now: int) -> dict[Digest, Deferral]:
        """Those that are known to cost more than a budget has left, without asking again.

        What is unspent of a period only shrinks: a run that goes on past its budget is told
        so without a transaction for each request.
        """
        current = [one for one in self._seen if one.window.holds(now)]
        refused: dict[Digest, Deferral] = {}
        for item in items if current else ():
            cost, account = self.most(item), item.account
            for one in current:
                short = cost > one.limit_nano - one.spent_nano
                if short and one.concerns(account.project, account.user):
                    refused[item.digest] = _deferral(one)
        return refused

    def admit(
        self, connection: Connection, flight_id: str, items: Sequence[Item], now: int
    ) -> Admission:
        """Reserve for as many items as there is money for."""
        if self._stopped is not None:
            return Admission((), (), {item.digest: self._stopped for item in items})
        self._seen = standings = self._budgets.keep(connection, now, now)
        asks = [Ask(i.account.project, i.account.user, self.most(i)) for i in items]
        verdict = afford(asks, [standing.room for standing in standings])
        granted = [items[index] for index in verdict.fits]
        self.hold(connection, flight_id, granted)
        for index in set(verdict.never.values()):
            tell_exhausted(connection, standings[index], now)
        refused = {
            items[index].digest: _deferral(standings[by]) for index, by in verdict.never.items()
        }
        return Admission(granted, [items[index] for index in verdict.waits], refused)

    def hold(self, connection: Connection, flight_id: str, items: Iterable[Item]) -> None:
        """Reserve for these items what their request can be billed, and nothing else."""
        amounts: dict[Payer, int] = {}
        for item in items:
            payer = (item.account.project, item.account.user)
            amounts[payer] = amounts.get(payer, 0) + self.most(item)
        reserve(connection, flight_id, amounts)

    def renew(
        self, connection: Connection, flight_id: str, items: Sequence[Item], at: int, now: int
    ) -> bool:
        """Reserve once more for a request that was lost and is to be sent again.

        Args:
            connection: the transaction that books what was lost.
            flight_id: the flight.
            items: what is still to be delivered.
            at: when the flight left: its spending counts for that period.
            now: the instant.

        Returns:
            Whether there is money for all of it; else nothing is reserved any more.
        """
        reserve(connection, flight_id, {})
        standings = self._budgets.keep(connection, at, now)
        asks = [Ask(i.account.project, i.account.user, self.most(i)) for i in items]
        enough = len(afford(asks, [standing.room for standing in standings]).fits) == len(items)
        if enough:
            self.hold(connection, flight_id, items)
        return enough

    def compare(self, items: Iterable[Item], tokens: int, provider: str) -> None:
        """Stop where a request was billed more than was reserved for it."""
        most = sum(map(self.most, items))
        billed = tokens * self._price
        if billed <= most:
            return
        message = (
            f"{provider} billed {tokens} tokens ({dollars(billed)}) for a request of at most "
            f"{dollars(most)}: no budget can be kept that way, so nothing more is bought. "
            "Check the provider and its count of tokens"
        )
        log.error("%s", message)
        self._stopped = Deferral(BUDGET, message)


def purse_of(budgets: Budgets | None, price: int | None) -> Purse | None:
    """None where nothing bounds spending, or nothing costs anything."""
    return Purse(budgets, price) if budgets is not None and price else None


def no_money_left() -> BudgetExceeded:
    """A request was lost, and there is no money to send it again."""
    return BudgetExceeded("no budget is left to send a lost request again")


def _deferral(standing: Standing) -> Deferral:
    return Deferral(BUDGET, f"no room in {standing.words()}")
