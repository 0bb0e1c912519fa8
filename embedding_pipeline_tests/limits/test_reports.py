"""Headers in; snapshots, metrics and the command out."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedding_pipeline.cli.root import root
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.limits.database import DatabaseLimits
from embedding_pipeline.limits.headers import limits_and_remaining
from embedding_pipeline.limits.protocol import Ask, News, Terms, Want
from embedding_pipeline.limits.sharing import exchange
from embedding_pipeline.limits.snapshot import between, prometheus, snapshots
from embedding_pipeline.limits.state import MOST_TOTALS, OTHERS, Total, added, from_json, to_json
from embedding_pipeline.state.store import Store

TERMS = Terms(tokens=60_000, requests=600)
WANTS = (Want('a "b"', 1000, 0, 1500, 500), Want("c", 1000, 2, 0, 9_900), Want("c", 1000, 2, 0, 9))
ASK = Ask("me", WANTS, news=(News("refused", "tokens", project="c", priority=2),))


@pytest.mark.parametrize(
    ("headers", "limits", "remaining"),
    [
        ({}, (-1, -1), (-1, -1)),
        (
            {
                "x-ratelimit-limit-tokens": "1000000",
                "x-ratelimit-limit-project-tokens": "250000",
                "x-ratelimit-remaining-tokens": "999000",
                "x-ratelimit-limit-requests": " 500 ",
                "x-ratelimit-remaining-requests": "-1",
            },
            (250_000, 500),
            (999_000, -1),
        ),
        ({"x-ratelimit-limit-tokens": "1e6"}, (-1, -1), (-1, -1)),
        ({"x-ratelimit-limit-requests": "9" * 40}, (-1, -1), (-1, -1)),
    ],
)
def test_headers_are_read_with_doubt(
    headers: dict[str, str], limits: tuple[int, int], remaining: tuple[int, int]
) -> None:
    assert limits_and_remaining(headers) == (limits, remaining)


def test_a_snapshot_says_who_got_what_and_who_waits() -> None:
    state, _ = exchange(None, TERMS, ASK, 1_790_000_000_000)
    (found,) = snapshots({"k": state})
    assert [(use.project, use.priority, use.permits, use.waiting) for use in found.uses] == [
        ('a "b"', "urgent", 0, 1),
        ("c", "bulk", 0, 2),
    ]
    assert (found.refused, found.processes) == (1, 1)
    assert [use.refused for use in found.uses] == [0, 1]
    state, _ = exchange(state, TERMS, Ask("me", WANTS), 1_790_000_011_000)
    (found,) = snapshots({"k": state})
    assert found.uses[0].permits == 1
    assert found.uses[0].waited_seconds == 1.5


def test_what_was_counted_between_two_snapshots() -> None:
    state, _ = exchange(None, TERMS, Ask("me", WANTS[:1]), 1_790_000_000_000)
    (before,) = snapshots({"k": state})
    state, _ = exchange(state, TERMS, Ask("me", (Want("d", 1000, 1, 0, 7),)), 1_790_000_000_001)
    state, _ = exchange(state, TERMS, Ask("me", news=ASK.news), 1_790_000_000_002)
    (after,) = snapshots({"k": state})
    seen = between(before, after)
    assert [(use.project, use.permits, use.tokens) for use in seen.uses] == [
        ("c", 0, 0),
        ("d", 1, 7),
    ]
    assert (seen.refused, between(None, after).refused) == (1, 1)
    busier = replace(before, refused=9, uses=tuple(replace(u, permits=9) for u in after.uses))
    assert between(busier, after).uses == after.uses, "the state was begun anew"
    assert between(busier, after).refused == 1


def test_metrics_are_in_prometheus_text_format() -> None:
    state, _ = exchange(None, TERMS, Ask("me", WANTS[:1]), 1_790_000_000_000)
    lines = prometheus(snapshots({"k": state})).splitlines()
    assert 'embedding_pipeline_limit_rate_per_minute{key="k",resource="tokens"} 60000' in lines
    assert (
        'embedding_pipeline_limit_permit_tokens_total{key="k",project="a \\"b\\"",'
        'priority="urgent"} 500' in lines
    )
    long = replace(state, totals={"p|2": (1, 123_456_789, 0, 0)})
    assert "123456789\n" in prometheus(snapshots({"k": long})), "counters in full"
    assert all(
        line.startswith(("# HELP ", "# TYPE ", "embedding_pipeline_limit_")) for line in lines
    )


def test_the_command_prints_what_the_store_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_DATA_DIR", str(tmp_path))
    empty = CliRunner().invoke(root, ["limits"])
    assert (empty.exit_code, empty.output) == (0, "No request asked for a permit yet.\n")

    async def fill() -> None:
        url = f"sqlite:///{tmp_path / 'state.db'}"
        store = DatabaseLimits(lambda: Store(url, SystemClock()), SystemClock())
        await store.exchange("api.example/m", TERMS, Ask("me", WANTS[:1]))
        await store.aclose()

    asyncio.run(fill())
    shown = CliRunner().invoke(root, ["limits"])
    assert shown.exit_code == 0
    assert "api.example/m: 60,000 tokens a minute (limit 60,000" in shown.output
    (parsed,) = json.loads(CliRunner().invoke(root, ["limits", "--json"]).output)
    assert parsed["uses"][0]["tokens"] == 500
    metrics = CliRunner().invoke(root, ["limits", "--prometheus"]).output
    assert metrics.startswith("# HELP embedding_pipeline_limit_")


def test_many_projects_are_counted_together() -> None:
    totals: dict[str, Total] = {}
    for number in range(MOST_TOTALS + 5):
        totals = added(totals, f"p{number}", 2, (1, 10, 0, 0))
    assert len(totals) == MOST_TOTALS + 1
    assert totals[f"{OTHERS}|2"] == (5, 50, 0, 0)


def test_a_state_written_before_refusals_were_counted_by_project_is_read() -> None:
    state, _ = exchange(None, TERMS, Ask("me", WANTS[:1]), 1_790_000_000_000)
    tree = json.loads(to_json(state))
    tree["totals"] = {name: total[:3] for name, total in tree["totals"].items()}
    for bucket in (tree["tokens"], tree["requests"]):
        del bucket["since"], bucket["served"]
    assert from_json(json.dumps(tree)).totals == state.totals
