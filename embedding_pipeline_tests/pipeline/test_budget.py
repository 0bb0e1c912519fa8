"""What the check says of a day's money."""

from datetime import UTC

from embedding_pipeline.ledger.deferred import Backlog
from embedding_pipeline.ledger.periods import Window
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.pipeline.budget import judge_budgets
from embedding_pipeline.pipeline.reports import CostReport
from embedding_pipeline.records import Account, Priority

REPORT = CostReport("2026-01-01", 10, 1000, 20_000, 0, 1, 1)
DAY = Window(1_767_225_600_000, 1_767_312_000_000)  # 2026-01-01, UTC


def standing(spent: int, scope: str = "all", reserved: int = 0) -> Standing:
    return Standing(scope, "day", 1_000_000, spent, reserved, DAY, (0.5, 0.8), UTC)


def undone(project: str = "docs", least: int = 10) -> Backlog:
    account = Account(project, "", "2026-01-01")
    return Backlog("s", account, "budget", Priority.NORMAL, 7, 3000, least, "p", 1)


def test_room_enough() -> None:
    verdict = judge_budgets(REPORT, [standing(499_999)], [], 20)
    assert verdict.passed
    assert verdict.metadata["spent_usd, budget all (day)"] == 0.000499999


def test_a_share_that_people_watch_is_a_warning() -> None:
    verdict = judge_budgets(REPORT, [standing(500_000)], [], 20)
    assert (verdict.passed, verdict.blocking) == (False, False)
    assert "50% of budget all (day): $0.000500 of $0.001000 spent" in verdict.description


def test_work_left_undone_blocks_and_says_what_remains_its_cost_and_when_it_goes_on() -> None:
    full, other = standing(999_900), standing(999_900, "project:other")
    verdict = judge_budgets(REPORT, [full, other], [undone()], 20)
    assert (verdict.passed, verdict.blocking) == (False, True)
    assert verdict.description.startswith(
        "7 chunks of 2026-01-01 are deferred: to embed them costs up to $0.000060. "
        "There is no room in budget all (day): "
    )
    assert "it resets at 2026-01-02 00:00 UTC" in verdict.description
    assert "project:other" not in verdict.description
    assert verdict.metadata["deferred"] == 7


def test_once_there_is_room_again_it_says_so() -> None:
    verdict = judge_budgets(REPORT, [standing(0)], [undone()], 20)
    assert not verdict.passed
    assert "There is room again" in verdict.description


def test_projection_and_words() -> None:
    noon = DAY.start_ms + 43_200_000
    assert standing(400_000).projected_nano(noon) == 800_000
    assert standing(400_000, reserved=100_000).left_nano == 500_000
    assert "$0.000100 reserved" in standing(400_000, reserved=100_000).words()
    assert standing(2_000_000).left_nano == standing(2_000_000).room.unspent_nano == 0
