"""Figures for Prometheus and Grafana, and log lines for machines."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from embedding_pipeline.assembly.metrics import metrics_now
from embedding_pipeline.assembly.service import open_service
from embedding_pipeline.exposition import PREFIX, Metric, render
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.cli.conftest import Folder
from embedding_pipeline_tests.engine.quick import settings_for
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

DASHBOARD = "deploy/grafana/embedding_pipeline.json"
NAME = re.compile(rf"{PREFIX}[a-z_]+")


@pytest.fixture
def settings(tmp_path: Path, fake_openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    budgets = [{"scope": "all", "period": "month", "limit_usd": 5}]
    monkeypatch.setenv("EMBEDDING_PIPELINE_BUDGETS", json.dumps(budgets))
    return settings_for(tmp_path, fake_openai.base_url)


def values(metrics: list[Metric], name: str) -> dict[str, float]:
    """The samples of one figure, by the values of their labels."""
    (found,) = (metric for metric in metrics if metric.name == name)
    return {" ".join(labels.values()): value for labels, value in found.samples}


async def test_what_was_done_is_counted(settings: Settings) -> None:
    async with open_service(settings) as service:
        for _ in range(2):
            await service.embed_many(["one", "two two"], project="red")
    found = await metrics_now(settings)
    space = "openai/text-embedding-3-small@1536"
    assert values(found, "requests_total") == {f"{space} red openai api": 1}
    (tokens,) = values(found, "input_tokens_total").values()
    (cost,) = values(found, "cost_usd_total").values()
    assert cost == pytest.approx(tokens * 20 / 1e9)
    assert values(found, "cache_entries") == {space: 2}
    assert values(found, "budget_limit_usd") == {"all month": 5.0}
    assert values(found, "budget_spent_usd") == {"all month": pytest.approx(cost)}
    assert not values(found, "requests_in_flight")


async def test_nothing_done_yet_is_no_error(settings: Settings) -> None:
    assert values(await metrics_now(settings), "budget_spent_usd") == {"all month": 0}
    assert not (settings.data_path / "state.db").exists()


def test_labels_are_escaped() -> None:
    text = render([Metric("x", "gauge", "Help.", [({"a": 'q"\n\\'}, 1.5), ({}, 2)])])
    assert text.splitlines()[2:] == [f'{PREFIX}x{{a="q\\"\\n\\\\"}} 1.5', f"{PREFIX}x 2"]


async def test_every_figure_of_the_dashboard_exists(settings: Settings, repository: Path) -> None:
    async with open_service(settings) as service:
        await service.embed_many(["one"])
    known = {PREFIX + metric.name: metric for metric in await metrics_now(settings)}
    dashboard = json.loads((repository / DASHBOARD).read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for expression in shown for name in NAME.findall(expression)}
    assert used <= known.keys()
    assert {name for name in known if "limit" not in name} - used == {f"{PREFIX}cache_entries"}
    for expression in shown:
        for name in re.findall(rf"(?:rate|increase)\(({NAME.pattern})", expression):
            assert known[name].kind == "counter", expression


def test_one_process_answers_for_the_deployment(folder: Folder) -> None:
    folder.settings(data_dir="data")
    with folder.start("metrics", "--port", "0") as process:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as reply:  # noqa: S310 - loopback
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert f"# TYPE {PREFIX}budget_limit_usd gauge" in reply.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("metrics", "other"))  # noqa: S310 - loopback


SAYS = """
import logging
from embedding_pipeline.definitions import defs
defs()
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("embedding_pipeline.x").exception("a %s\\nline", "broken")
"""


def test_log_lines_are_objects_when_asked_for(folder: Folder) -> None:
    folder.settings(data_dir="data", logs={"format": "json"})
    command = [sys.executable, "-W", "ignore", "-c", SAYS]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, check=True)
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line["message"] == "a broken\nline"
    assert (line["level"], line["logger"]) == ("error", "embedding_pipeline.x")
    assert line["time"].endswith("+00:00")
    assert "ZeroDivisionError" in line["error"]
