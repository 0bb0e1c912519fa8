"""From an entry in the ledger to a message that somebody has read."""

from pathlib import Path

import pytest
import yaml

from embedding_pipeline.alerts.outbox import waiting
from embedding_pipeline.alerts.sending import Delivery
from embedding_pipeline.assembly.watching import send_alerts, standings
from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.alerts.receiver import receiving
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.ledger.test_budgets import spend

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings: a budget of 1,000 nano-dollars and a webhook."""
    settings = {
        "budgets": [{"scope": "project:a", "period": "month", "limit_usd": 1e-6}],
        "alerts": {"webhook_url_env": "HOOK"},
        "partitions": {"timezone": "Europe/Berlin"},
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def book(settings: Settings, tokens: int, clock: FakeClock) -> None:
    Path(settings.state.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True)
    with Store(settings.state, clock) as store:
        await store.write(lambda c: spend(c, tokens, int(clock.now() * 1000)))


async def test_a_share_is_told_once_and_the_next_month_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, settings = FakeClock(), load_settings()  # 21 September 2026
    async with receiving() as receiver:
        monkeypatch.setenv("HOOK", receiver.url)
        assert await send_alerts(settings, clock) == Delivery(0), "nothing was ever spent"
        assert not (folder / ".embedding_pipeline").exists()
        await book(settings, 850, clock)
        for _ in range(3):  # each as a process of its own
            await send_alerts(load_settings(), clock)
        (text,) = receiver.texts
        assert text == (
            "80% of a budget is spent. budget project:a (month): $0.000001 of $0.000001 spent; "
            "it resets at 2026-10-01 00:00 CEST"
        )
        clock.advance(15 * 86_400)
        assert (await standings(settings, clock))[0].spent_nano == 0
        await book(settings, 900, clock)
        await send_alerts(settings, clock)
        assert len(receiver.texts) == 2
    with Store(settings.state, clock) as store:
        assert await store.read(waiting) == 0


async def test_without_an_address_it_says_what_is_missing(folder: Path) -> None:
    with pytest.raises(SettingsError, match="the variable HOOK holds nothing"):
        await send_alerts(load_settings())
