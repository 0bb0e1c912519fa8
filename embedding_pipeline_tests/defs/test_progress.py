"""Lines about a run come often enough to be useful and seldom enough to be read."""

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.defs.progress import EVERY_SECONDS, ProgressLog, is_due, line
from embedding_pipeline.pipeline.words import duration
from embedding_pipeline.service.work import Progress

steps = st.lists(st.tuples(st.integers(0, 400), st.floats(0, 5)), max_size=200)


def progress(done: int, seconds: float, total: int | None = 1000) -> Progress:
    return Progress(done, total, done, done * 100, done * 2_000_000, seconds)


@given(steps, st.integers(1, 5000))
def test_the_number_of_lines_is_bounded_by_time_and_by_share(
    taken: list[tuple[int, float]], total: int
) -> None:
    said: list[str] = []
    log, done, seconds = ProgressLog(said.append), 0, 0.0
    for more, later in taken:
        done, seconds = min(total, done + more), seconds + later
        log(progress(done, seconds, total))
    assert len(said) <= 2 + 20 + seconds / EVERY_SECONDS


@given(st.integers(1, 10**9))
def test_the_end_is_always_said_and_only_once(total: int) -> None:
    end = progress(total, 1.0, total)
    assert is_due(progress(total - 1, 1.0, total), end)
    assert not is_due(end, end)


def test_a_silence_ends_after_ten_seconds() -> None:
    last = progress(100, 5.0)
    assert not is_due(last, progress(101, 14.9))
    assert is_due(last, progress(101, 15.0))


def test_a_line_says_how_far_how_fast_how_much_and_how_long() -> None:
    assert line(progress(250, 10.0)) == (
        "250 of 1,000 chunks (25%), 2,500 tokens/s, $0.5000 so far, about 30 s left"
    )


def test_a_pace_of_the_first_moments_is_no_forecast() -> None:
    assert "left" not in line(progress(250, 0.1))


def test_a_total_that_is_not_known_is_left_out() -> None:
    assert line(progress(250, 10.0, None)) == "250 chunks, 2,500 tokens/s, $0.5000 so far"


def test_durations_are_said_in_the_unit_that_fits() -> None:
    assert [duration(value) for value in (0.4, 89, 90, 5399, 5400)] == [
        "0 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
    ]
