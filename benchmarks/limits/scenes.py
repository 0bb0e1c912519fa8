"""Fairness, urgency, a change of the limit, and a process that is killed.

Belongs here: one function a promise, returning its figures and whether it holds. Every caller
is a real process; the shares are those of a window after the opening burst.
"""

import time
from typing import Any

from benchmarks.limits.stage import PATIENCE, Figures, Stage, stage
from embedding_pipeline_tests.limits import load
from embedding_pipeline_tests.limits.load import Answer, Outcome, Work, median, p99

RPM, TPM = 500, 1_000_000
WARM_UP = 6.0
SETTLE = 30.0


def killed(store: str, seconds: float) -> Figures:
    """A process that holds permits, and one that has requests out, are ended by SIGKILL.

    The server's bucket is not much fuller than the burst, so that what the dead ones hold is
    not made up for by anything saved. Two others go on.
    """
    del seconds
    holding = Work("holds", "dead", tokens=10_000, lanes=4)
    sending = Work(project="dying", tokens=25_000)
    with stage(store, RPM, TPM) as here:
        here.fake.limit(rpm=RPM, tpm=TPM, level=0.25)
        victims = here.start(300.0, [[holding], [sending]])
        others = here.start(85.0, [[Work()]] * 2)
        began = load.go([*victims, *others])
        _until(began + 15)
        held = here.tokens_given("dead")
        for victim in victims:
            load.kill(victim)
        at = time.monotonic()
        outcome = load.merged([load.finish(worker, PATIENCE) for worker in others])
        refused = here.refused
    minute = outcome.tokens(begin=at, end=at + 60) / TPM
    whole = _first_full(outcome, at, TPM / 60)
    return {
        "held_tokens": held,
        "others_in_the_minute_after": round(minute, 4),
        "others_have_all_after_seconds": whole,
        "429s": refused,
        "holds": refused == 0 and held > 0 and minute >= 0.85 and whole <= 60,
    }


def _first_full(outcome: Outcome, at: float, a_second: float) -> float:
    """Seconds after ``at`` from which on ten seconds' worth is used in ten seconds."""
    for start in range(60):
        if outcome.tokens(begin=at + start, end=at + start + 10) >= 0.97 * 10 * a_second:
            return float(start)
    return float("inf")


def weights(store: str, seconds: float) -> Figures:
    """Projects of weight 3 and 1: the lighter alone, then both, then a third with 100 chunks.

    Requests are small, so that a whole one more or less is no per cent of a share.
    """
    tenants: list[dict[str, Any]] = [
        {"project": "heavy", "weight": 3},
        {"project": "light"},
        {"project": "third"},
    ]
    alone, both = 20.0, max(seconds, 60.0)
    arrives = alone + 10 + both
    third = Work(project="third", tokens=25_000, lanes=1, times=1, start=arrives)
    light = Work(project="light", tokens=2_500)
    heavy = Work(project="heavy", tokens=2_500, start=alone)
    with stage(store, RPM, TPM, tenants=tenants) as here:
        groups = [[light], [light], [heavy], [heavy], [third]]
        began, outcome = here.run(arrives + 25, groups)
        refused = here.refused
    lighter = outcome.tokens("light", began + WARM_UP, began + alone) / (alone - WARM_UP)
    window = (began + alone + 10, began + arrives)
    shares = outcome.tokens("heavy", *window) / outcome.tokens("light", *window)
    wait = median(outcome.waits("third"))
    at_its_share = 25_000 / (TPM / 60 / 5)
    return {
        "heavy_to_light": round(shares, 3),
        "light_alone": round(lighter / (TPM / 60), 4),
        "third_seconds": round(wait, 2),
        "third_alone_at_its_share": at_its_share,
        "429s": refused,
        "holds": abs(shares / 3 - 1) <= 0.05
        and lighter >= 0.97 * TPM / 60
        and wait <= 2 * at_its_share
        and refused == 0,
    }


def equals(store: str, seconds: float) -> Figures:
    """Eight equal projects, with requests of different sizes, in four processes."""
    works = [Work(project=f"p{n}", tokens=2_000 + 2_000 * n, lanes=6) for n in range(8)]
    with stage(store, RPM, TPM) as here:
        began, outcome = here.run(WARM_UP + max(seconds, 40.0), [works[n::4] for n in range(4)])
        refused = here.refused
    got = [outcome.tokens(work.project, began + WARM_UP) for work in works]
    jain = sum(got) ** 2 / (8 * sum(tokens**2 for tokens in got))
    return {"jain": round(jain, 4), "429s": refused, "holds": jain >= 0.95 and refused == 0}


def urgent(store: str, seconds: float) -> Figures:
    """Single texts, one after the other with a pause, beside two backfills of the service."""
    window = max(seconds, 60.0)
    backfill = Work("backfill", "docs", "bulk", lanes=1)
    asking = Work("singles", "live", "urgent", tokens=100, lanes=2, start=WARM_UP, pause=0.4)
    alone = _bulk_tokens(store, window, [[backfill], [backfill]])
    beside = _bulk_tokens(store, window, [[backfill], [backfill, asking], [asking]])
    waits = beside[1].waits("live")
    lost = 1 - beside[0] / alone[0]
    return {
        "median_s": round(median(waits), 3),
        "p99_s": round(p99(waits), 3),
        "texts": len(waits),
        "bulk_lost": round(lost, 4),
        "429s": alone[2] + beside[2],
        "holds": median(waits) < 1 and p99(waits) < 3 and lost < 0.05,
    }


def _bulk_tokens(store: str, window: float, groups: list[list[Work]]) -> tuple[float, Outcome, int]:
    with stage(store, RPM, TPM) as here:
        running = here.start(window + 5 * WARM_UP, groups)
        began = load.go(running)
        _until(began + WARM_UP)
        first, at = _edge(here)
        _until(at + window)
        last, end = _edge(here)
        outcome = load.merged([load.finish(worker, PATIENCE) for worker in running])
        refused = here.refused
    live = outcome.tokens("live", at, end)
    return (last - first - live) / (end - at), outcome, refused


def _edge(here: Stage) -> tuple[int, float]:
    """Tokens accepted so far, just after a large request, and when that was.

    A window between two such instants holds whole requests: one is 5 % of a minute.
    """
    before, deadline = here.fake.books.tokens, time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = here.fake.books.tokens
        if now - before >= 10_000:
            return now, time.monotonic()
        before = now
    raise TimeoutError("the backfill stands still")


def halved(store: str, seconds: float, *, headers: bool = True) -> Figures:
    """The server halves its limit in mid-run and restores it later, its bucket empty each time."""
    window = max(seconds, 60.0)
    with stage(store, RPM, TPM) as here:
        here.fake.limit(rpm=RPM, tpm=TPM, headers=headers)
        running = here.start(25 + SETTLE + 2 * window + SETTLE, [[Work()]] * 4)
        began = load.go(running)
        _until(began + 25)
        here.fake.limit(rpm=RPM // 2, tpm=TPM // 2, headers=headers, level=0.0)
        half = time.monotonic()
        _until(half + SETTLE)
        early = here.refused
        _until(half + SETTLE + window)
        late = here.refused - early
        here.fake.limit(rpm=RPM, tpm=TPM, headers=headers, level=0.0)
        whole = time.monotonic()
        outcome = load.merged([load.finish(worker, PATIENCE + window) for worker in running])
        storm = here.refused - early - late
    found = [_used(outcome.answers, half + SETTLE, window) / (TPM / 120)]
    found.append(_used(outcome.answers, whole + window, SETTLE) / (TPM / 60))
    return {
        "429s_in_30s": early,
        "429s_after_30s": late,
        "used_of_half": round(found[0], 4),
        "climbed_to": round(found[1], 4),
        "429s_after_restoring": storm,
        "holds": early <= 8
        and late <= (0 if headers else window // 15)
        and found[0] >= 0.9
        and found[1] >= 0.9
        and storm <= 3,
    }


def _until(instant: float) -> None:
    time.sleep(max(instant - time.monotonic(), 0))


def _used(answers: list[Answer], begin: float, seconds: float) -> float:
    """Tokens a second in a stretch."""
    return sum(a.tokens for a in answers if begin <= a.at < begin + seconds) / seconds


def blind(store: str, seconds: float) -> Figures:
    """``halved`` by a server that sends no headers but Retry-After."""
    return halved(store, seconds, headers=False)
