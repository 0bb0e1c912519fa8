"""No budget is passed at any instant, by however many processes, and little is left unused.

Sixteen workers in four processes here; ``python -m benchmarks.budgets`` has sixty-four in
eight, for longer.
"""

from pathlib import Path

import pytest

from embedding_pipeline_tests.servers import postgres_server, postgres_url  # noqa: F401 - fixtures
from embedding_pipeline_tests.service.spending import Outcome, spend
from embedding_pipeline_tests.stores import url_in


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return url_in(tmp_path)
    found: str = request.getfixturevalue("postgres_url")
    return found


def assert_kept(found: Outcome) -> None:
    assert found.looks > 20
    assert found.most <= found.limit
    assert found.spent <= found.limit
    assert found.spent >= 0.98 * found.limit
    assert found.reserved == 0
    assert found.spent == found.settled + found.unknown


def test_all_spend_a_budget_and_none_of_them_more(tmp_path: Path) -> None:
    found = spend(url_in(tmp_path), tmp_path, processes=4, workers=4, texts=100, kill=False)
    assert_kept(found)
    assert (found.unknown, found.settled) == (0, found.billed)
    assert found.ends["embedded"] + found.ends["deferred"] == 1600


def test_half_of_them_are_killed_and_the_books_hold_whatever_was_billed(
    url: str, tmp_path: Path
) -> None:
    found = spend(url, tmp_path, processes=4, workers=4, texts=100, kill=True)
    assert_kept(found)
    assert found.unknown >= found.billed - found.settled > 0, "kills struck requests"
