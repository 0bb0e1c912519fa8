"""Two providers of one space, over real HTTP: one fails in mid-run, the other goes on."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from embedding_pipeline.assembly.embedder import in_order, limit_key
from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.ledger import queries
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.service.work import Progress
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.schema import ledger
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.engine.oracle import DAY, Outcome, assert_right, prepare, vectors_of
from embedding_pipeline_tests.engine.quick import MODEL, QuickClock
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI, Options, listening

pytestmark = pytest.mark.anyio

TEXTS = [f"chunk {number} of a day with two providers" for number in range(400)]
KEYS = {"FIRST_KEY": "sk-first-0123456789", "SECOND_KEY": "azure0123456789"}
DEPLOYMENT = "embeddings-west"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def first_account() -> FakeOpenAI:
    return FakeOpenAI(Options(keys=(KEYS["FIRST_KEY"],)))


def azure_account() -> FakeOpenAI:
    """Takes another key, in another header, at another path."""
    return FakeOpenAI(Options(keys=(KEYS["SECOND_KEY"],), deployments={DEPLOYMENT: MODEL}))


def settings_for(folder: Path, first: FakeOpenAI, second: FakeOpenAI, **more: Any) -> Settings:
    azure = {
        "name": "azure-west",
        "kind": "azure",
        "base_url": second.resource,
        "api_key_env": "SECOND_KEY",
        "deployment": DEPLOYMENT,
        "priority": 2,
    }
    openai = {
        "name": "openai",
        "kind": "openai",
        "base_url": first.base_url,
        "api_key_env": "FIRST_KEY",
        "priority": 1,
    }
    return load_settings(
        {
            "data_dir": str(folder),
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [azure, openai],
            "retry": {"timeout_seconds": 300},
            "requests": {"max_inputs": 20},
            "limits": {"max_in_flight": 4},
            **more,
        }
    )


async def embedded(settings: Settings, look: Any = None) -> Outcome:
    """Embed the day; keys come from the environment, each provider its own."""
    async with EmbeddingService.open(settings, clock=QuickClock()) as service:
        await build_embeddings(service, build_datasets(settings), [DAY], on_progress=look)
        sums = await service.store.read(queries.sums)
        waiting = frozenset(map(int, await service.deferred(DAY)))
    unknown = sum(entry.unknown_nano_usd for entry in sums) // 20
    settled = sum(entry.tokens for entry in sums) - unknown
    return Outcome(None, vectors_of(settings), {}, waiting, settled, unknown, 0)


async def tokens_by_provider(settings: Settings, outcome: str) -> dict[str, int]:
    c = ledger.c
    query = select(c.provider, func.sum(c.tokens)).where(c.outcome == outcome).group_by(c.provider)
    with Store(settings.state, QuickClock()) as store:
        rows = await store.read(lambda connection: connection.execute(query).all())
    return {name: int(tokens) for name, tokens in rows if tokens}


async def test_an_outage_in_mid_run_and_the_other_account_goes_on(tmp_path: Path) -> None:
    async with listening(first_account()) as first, listening(azure_account()) as second:
        settings = settings_for(tmp_path, first, second)
        prepare(settings, TEXTS)

        def fail(progress: Progress) -> None:
            if progress.done * 3 >= len(TEXTS):
                first.fault(Fault("500"))

        outcome = await embedded(settings, fail)
        assert_right(outcome, TEXTS)
        assert len(outcome.vectors) == len(TEXTS)
        assert first.books.inputs + second.books.inputs == len(TEXTS), "nothing is paid twice"
        assert 0 < first.books.inputs < len(TEXTS)
        assert await tokens_by_provider(settings, "settled") == {
            "openai": first.books.reported,
            "azure-west": second.books.reported,
        }
        lost = first.books.lost + first.books.doubtful
        assert await tokens_by_provider(settings, "unknown") == ({"openai": lost} if lost else {})
        assert second.books.keys.keys() == {KEYS["SECOND_KEY"]}


async def test_both_out_in_mid_run_and_the_next_run_ends_it(tmp_path: Path) -> None:
    async with listening(first_account()) as first, listening(azure_account()) as second:
        settings = settings_for(tmp_path, first, second)
        prepare(settings, TEXTS)

        def fail(progress: Progress) -> None:
            if progress.done * 3 >= len(TEXTS) and not first.books.faults:
                first.fault(Fault("500"))
                second.fault(Fault("503_server_error"))

        outcome = await embedded(settings, fail)
        assert 0 < len(outcome.vectors) < len(TEXTS)
        assert first.books.faults, "it did fail"
        assert_right(outcome, TEXTS)
        assert outcome.deferred, "as on_outage says by default"
        first.fault()
        second.fault()
        done = await embedded(settings)
        assert_right(done, TEXTS)
        assert len(done.vectors) == len(TEXTS)
        assert first.books.inputs + second.books.inputs == len(TEXTS), "nothing is paid twice"


async def test_a_wrong_key_of_the_first_is_found_out_once(tmp_path: Path) -> None:
    async with listening(first_account()) as first, listening(azure_account()) as second:
        first.options.keys = ("sk-another",)
        settings = settings_for(tmp_path, first, second)
        prepare(settings, TEXTS[:100])
        outcome = await embedded(settings)
        assert len(outcome.vectors) == 100
        assert (first.books.requests, second.books.inputs) == (1, 100)


async def test_a_provider_that_comes_back_is_taken_again(tmp_path: Path) -> None:
    async with listening(first_account()) as first, listening(azure_account()) as second:
        settings = settings_for(tmp_path, first, second)
        clock = QuickClock()
        async with EmbeddingService.open(settings, clock=clock) as service:
            first.fault(Fault("503_server_error"))
            for number in range(8):
                await service.generate_embedding(f"text {number}")
            assert second.books.inputs == 8
            first.fault()
            await clock.sleep(60)
            await service.generate_embedding("text after the outage")
            assert (first.books.inputs, second.books.inputs) == (1, 8)


async def test_each_provider_has_its_own_limit_and_needs_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, first_account(), azure_account())
    names = {limit_key(settings, provider) for provider in settings.providers}
    assert len(names) == 2
    assert [provider.name for provider in in_order(settings)] == ["openai", "azure-west"]
    monkeypatch.delenv("SECOND_KEY")
    with pytest.raises(ConfigurationError, match="SECOND_KEY holds no key"):
        EmbeddingService.open(settings)
