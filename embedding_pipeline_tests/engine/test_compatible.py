"""A compatible server beside an account with OpenAI: used once it has shown its vectors."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from embedding_pipeline.assembly.known import WANTED
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.embedders.booking import PROJECT
from embedding_pipeline.embedders.vouching import KNOWN_TEXTS
from embedding_pipeline.errors import ProviderRefused, TransientProviderError
from embedding_pipeline.ledger import queries
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.schema import flights, ledger, owners
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.engine.oracle import assert_right, prepare, run
from embedding_pipeline_tests.engine.quick import MODEL, QuickClock
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, Options, listening

pytestmark = pytest.mark.anyio

TEXTS = [f"chunk {number} of a day with a server in the next room" for number in range(60)]
OTHER = "text-embedding-ada-002"
LEFT_BEHIND = select(flights.c.id).union_all(select(owners.c.id))
DOWN = Fault("503_server_error")
KNOWN = len(KNOWN_TEXTS)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def settings_for(folder: Path, *servers: FakeOpenAI, **more: Any) -> Settings:
    """The first is an account with OpenAI, the others are compatible."""
    providers = [
        {
            "name": f"next-room-{number}" if number else "openai",
            "kind": "compatible" if number else "openai",
            "base_url": server.base_url,
            "priority": number,
        }
        for number, server in enumerate(servers)
    ]
    return load_settings(
        {
            "data_dir": str(folder),
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": providers,
            "retry": {"timeout_seconds": 300, "max_attempts": 2},
            "requests": {"max_inputs": 10},
            "limits": {"max_in_flight": 1},
            **more,
        }
    )


async def ask(settings: Settings, text: str, clock: Clock | None = None) -> None:
    """One text, from a process that knows nothing of earlier ones."""
    async with EmbeddingService.open(settings, clock=clock or QuickClock()) as service:
        await service.generate_embedding(text)


async def booked(settings: Settings) -> dict[str, int]:
    """Tokens by provider, and of checks; nothing and nobody is left behind."""
    c = ledger.c
    query = select(c.provider, func.sum(c.tokens)).group_by(c.provider)
    with Store(settings.state, QuickClock()) as store:
        rows = await store.read(lambda connection: connection.execute(query).all())
        sums = await store.read(queries.sums)
        assert await store.read(lambda connection: connection.execute(LEFT_BEHIND).all()) == []
    checks = sum(entry.tokens for entry in sums if entry.account.project == PROJECT)
    return {PROJECT: checks, **{name: int(tokens) for name, tokens in rows if tokens}}


async def test_it_goes_on_where_the_first_stops_and_every_token_is_booked(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as first, listening(FakeOpenAI()) as second:
        settings = settings_for(tmp_path, first, second)
        prepare(settings, TEXTS)
        await ask(settings, "a day before")
        assert (first.books.inputs, second.books.inputs) == (1 + KNOWN, KNOWN), "compared at once"
        checked = second.books.tokens
        first.fault(DOWN)
        outcome = await run(settings)
        assert_right(outcome, TEXTS)
        assert len(outcome.vectors) == len(TEXTS)
        assert second.books.inputs == KNOWN + len(TEXTS), "it is checked once"
        tokens = await booked(settings)
        assert tokens.pop(PROJECT) == 2 * checked
        assert tokens == {"openai": first.books.tokens, "next-room-1": second.books.tokens}


async def test_stored_texts_are_what_it_is_compared_with(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as first, listening(FakeOpenAI()) as second:
        prepare(settings_for(tmp_path, first), TEXTS)
        await run(settings_for(tmp_path, first))
        first.fault(DOWN)
        settings = settings_for(tmp_path, first, second)
        await ask(settings, "a text of another day")
        assert second.books.inputs == WANTED + 1
        assert len(second.books.billed.keys() & first.books.billed.keys()) == WANTED
        second.options.reported = f"{MODEL}-v2"
        await ask(settings, "a text for a model of another name")
        assert second.books.inputs == 2 * (WANTED + 1), "compared again"
        await ask(settings, "one more")
        assert second.books.inputs == 2 * (WANTED + 1) + 1
        second.options.reported, second.options.vectors_of = f"{MODEL}-v3", OTHER
        with pytest.raises(TransientProviderError, match="of 5 known texts"):
            await ask(settings, "a text for another model")
        assert (await booked(settings))["next-room-1"] >= second.books.tokens, "unused, and booked"


async def test_nothing_of_another_model_is_used_and_the_error_says_why(tmp_path: Path) -> None:
    impostor = FakeOpenAI(Options(vectors_of=OTHER))
    async with listening(FakeOpenAI()) as first, listening(impostor) as second:
        settings = settings_for(tmp_path, first, second, on_outage="defer")
        prepare(settings, TEXTS)
        await ask(settings, "a day before")
        first.fault(DOWN)
        outcome = await run(settings)
        assert_right(outcome, TEXTS)
        assert len(outcome.deferred) == len(TEXTS), "rather none than another model's"
        assert second.books.inputs == KNOWN, "nothing else was sent"
        words = r"next-room-1 is not used.* of 4 known texts .* similarity of -?0\.\d+ at worst"
        with pytest.raises(TransientProviderError, match=words):
            await ask(settings, "a question")


async def test_with_nothing_to_compare_it_with_it_is_refused(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as first, listening(FakeOpenAI()) as second:
        first.fault(DOWN)
        settings = settings_for(tmp_path, first, second)
        with pytest.raises(TransientProviderError, match="nothing is known to compare it with"):
            await ask(settings, "a question")
        assert second.books.requests == 0
        first.fault()
        await ask(settings, "another question")
        assert second.books.inputs == KNOWN, "now it is known"


async def test_two_of_them_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as server:
        settings = settings_for(tmp_path, server, server, server)
        pair = settings.model_copy(update={"providers": settings.providers[1:]})
        with pytest.raises(ProviderRefused, match=r"next-room-\d is not used"):
            await ask(pair, "a question")
        assert server.books.requests == 0


async def test_a_budget_without_room_forbids_the_check(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as first, listening(FakeOpenAI()) as second:
        budget = {"scope": f"project:{PROJECT}", "period": "day", "limit_usd": 0.0000001}
        settings = settings_for(tmp_path, first, second, budgets=[budget])
        await ask(settings, "a question")
        assert (first.books.requests, second.books.requests) == (1, 0)
        first.fault(DOWN)
        with pytest.raises(TransientProviderError, match="no budget has room for the check"):
            await ask(settings, "another question")


async def test_ten_at_once_check_it_once(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as first, listening(FakeOpenAI()) as second:
        settings = settings_for(tmp_path, first, second)
        clock = SystemClock()
        await asyncio.gather(*(ask(settings, f"question {n}", clock) for n in range(10)))
        assert second.books.requests == 1
        assert (await booked(settings))["next-room-1"] == second.books.tokens
