"""Every entry falls on its local day, in every zone, over the change of clocks."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.periods import window_of
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.ledger.spending import SpentOn, by_day, local_day
from embedding_pipeline.records import Account, Kind, Space
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

ZONES = ["Europe/Berlin", "America/Santiago", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


async def booked(store: Store, *instants: str) -> list[SpentOn]:
    """One entry of ten tokens at each instant, read back by Berlin's days."""

    def work(connection: Connection) -> None:
        number = space_id(connection, Space("openai", "m", "", 4))
        shares = (Share(Account("p"), 1),)
        flight = Flight("f", "o", number, "", "openai", Kind.API, 20, shares)
        for instant in instants:
            flights.settle(
                connection,
                flight,
                shares,
                tokens=10,
                requests=1,
                wait_ms=0,
                provider="openai",
                began_ms=ms(instant),
            )

    await store.write(work)
    return await store.read(lambda connection: list(by_day(connection, BERLIN)))


async def test_days_begin_at_local_midnight_summer_and_winter(store: Store) -> None:
    found = await booked(
        store,
        "2026-03-28T22:59:59+00:00",  # still the 28th: the clocks go forward in the night after
        "2026-03-28T23:00:00+00:00",
        "2026-03-29T21:59:59+00:00",  # the 29th has 23 hours
        "2026-03-29T22:00:00+00:00",
        "2026-10-25T22:59:59+00:00",  # the 25th has 25 hours
    )
    assert [(one.day.isoformat(), one.entry.tokens) for one in found] == [
        ("2026-03-28", 10),
        ("2026-03-29", 20),
        ("2026-03-30", 10),
        ("2026-10-25", 10),
    ]
    assert sum(one.entry.cost_nano_usd for one in found) == 5 * 10 * 20


async def test_an_empty_ledger_has_no_days(store: Store) -> None:
    assert await booked(store) == []


@given(st.sampled_from(ZONES), st.integers(946_684_800_000, 2_840_140_800_000))
def test_an_instant_is_on_the_day_whose_borders_hold_it(name: str, at_ms: int) -> None:
    zone = ZoneInfo(name)
    window = window_of("day", at_ms, zone)
    assert window.end_ms is not None
    assert window.holds(at_ms)
    assert local_day(window.start_ms, zone) == local_day(at_ms, zone)
    assert local_day(window.end_ms - 1, zone) == local_day(at_ms, zone)
    assert local_day(window.end_ms, zone) != local_day(at_ms, zone)
