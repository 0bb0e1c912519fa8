"""Advice is given where the figures bear it, with these figures, and not elsewhere."""

from dataclasses import replace

import pytest

from embedding_pipeline.pipeline.history.advice import Advice, Circumstances, advise
from embedding_pipeline.pipeline.history.figures import History, NearCopies, Overlap, Stored
from embedding_pipeline_tests.pipeline.history.making import MODEL, history, saving, spent

SPACE = "openai/text-embedding-3-small@1536"
NOW = Circumstances({MODEL: 10}, False, frozenset({SPACE}), 20, 64)


def topics(found: History, now: Circumstances = NOW) -> list[str]:
    return [advice.topic for advice in advise(found, now)]


def only(found: History, now: Circumstances = NOW) -> Advice:
    (advice,) = advise(found, now)
    return advice


def test_no_figures_no_advice() -> None:
    assert advise(history(), NOW) == []
    assert advise(history(), Circumstances()) == []


def test_the_batch_api_for_what_nobody_waits_for() -> None:
    rows = [spent(3, 8000), spent(2, 2000, bulk=False), spent(40, 10**9)]
    advice = only(history(*rows))
    assert advice.topic == "batch_api"
    assert advice.saves_nano_usd == 4000, "half of what went to partitions lately"
    assert "80%" in advice.title
    assert topics(history(*rows), replace(NOW, batch_api=True)) == []
    assert topics(history(*rows), replace(NOW, batch_prices={})) == []
    assert topics(history(spent(1, 100), spent(1, 9900, bulk=False))) == []


def test_a_project_of_duplicates() -> None:
    savings = [saving("duplicate", 40, 99), saving("api", 60), saving("api", 500, project="fine")]
    advice = only(history(savings=savings))
    assert advice.title == "docs delivers 40% duplicates"
    assert advice.evidence == {"project": "docs", "duplicates": 40, "chunks": 100}
    assert topics(history(savings=[saving("duplicate", 40), saving("api", 59)])) == []
    assert topics(history(savings=[saving("duplicate", 10), saving("api", 90)])) == []


def test_near_copies_that_were_paid_for() -> None:
    days = ("2026-11-01", "2026-11-02")
    near = NearCopies(days, 0.9, {"docs": 12, "few": 2}, {"docs": 1200, "few": 9})
    advice = only(history(near=near))
    assert advice.saves_nano_usd == 1200 * 20
    assert "dedup.threshold: 0.9" in advice.text
    assert topics(history(near=near), replace(NOW, price=None)) == []


@pytest.mark.parametrize(
    ("vectors", "dimensions", "space"),
    [(100, 1536, SPACE), (10**6, 256, SPACE), (10**6, 1536, "local/x@1536")],
)
def test_vectors_that_need_not_or_cannot_be_shorter(
    vectors: int, dimensions: int, space: str
) -> None:
    assert topics(history(stored=[Stored(space, 1536, dimensions, vectors, 10**9)])) == []


def test_shorter_vectors_save_storage() -> None:
    advice = only(history(stored=[Stored(SPACE, 1536, 1536, 10**6, 6_200_000_000)]))
    assert advice.saves_bytes == 4 * 10**6 * 768
    assert advice.saves_nano_usd is None
    assert "measure it" in advice.text


def test_overlap_is_paid_for() -> None:
    overlap = Overlap(("2026-11-01", "2026-11-03"), 1000, 120, 5000)
    advice = only(history(overlap=overlap))
    assert advice.saves_nano_usd == 600
    assert "12%" in advice.title
    assert "overlap_tokens: 64" in advice.text
    assert topics(history(overlap=replace(overlap, repeated_tokens=40))) == []


def test_money_that_brought_nothing() -> None:
    advice = only(history(spent(1, 1000, bulk=False, unknown_nano_usd=100)))
    assert advice.topic == "unknown"
    assert "10%" in advice.title
    assert topics(history(spent(1, 1000, bulk=False, unknown_nano_usd=10))) == []


def test_the_largest_saving_comes_first() -> None:
    overlap = Overlap(("a", "b"), 1000, 500, 100_000)
    assert topics(history(spent(1, 9000), overlap=overlap)) == ["overlap", "batch_api"]
