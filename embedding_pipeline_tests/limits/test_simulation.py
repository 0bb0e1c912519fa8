"""What the limit promises, over minutes of virtual time against exact buckets."""

import statistics

import pytest

from embedding_pipeline.limits.callers import Tenants
from embedding_pipeline.limits.config import TenantConfig
from embedding_pipeline.limits.protocol import Terms
from embedding_pipeline.records import Priority
from embedding_pipeline_tests.fake_openai.buckets import Limits
from embedding_pipeline_tests.limits.simulation import Provider, VirtualClock, in_no_time, world

TPM = 1_000_000
RPM = 500
KNOWN = Terms(tokens=TPM, requests=RPM)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize(("rpm", "tpm"), [(500, 1_000_000), (3_000, 5_000_000)])
@pytest.mark.parametrize(("known", "refusals", "least"), [(True, 0, 0.97), (False, 3, 0.92)])
def test_the_limit_is_used_and_not_passed(
    count: int, rpm: int, tpm: int, known: bool, refusals: int, least: float
) -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=rpm, tpm=tpm))
        terms = Terms(tokens=tpm, requests=rpm) if known else Terms()
        async with world(clock, provider, count, terms) as run:
            for process in range(count):
                run.backlog(process, 10_000)
            await run.run(120)
        assert len(provider.books.refused) <= refusals
        assert provider.books.tokens >= least * tpm * 2
        in_window = sum(cost for at, cost in provider.books.served_at if 60 <= at < 120)
        assert least * tpm <= in_window <= 1.02 * tpm

    in_no_time(scene())


def test_requests_are_what_is_scarce_for_small_ones() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 4, KNOWN) as run:
            for process in range(4):
                run.backlog(process, 100)
            await run.run(120)
        served = sum(1 for at, _ in provider.books.served_at if 60 <= at < 120)
        assert not provider.books.refused
        assert 0.97 * RPM <= served <= 1.02 * RPM

    in_no_time(scene())


def test_without_headers_the_rate_is_found_and_kept() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM), headers=False)
        async with world(clock, provider, 4, Terms()) as run:
            for process in range(4):
                run.backlog(process, 10_000)
            await run.run(420)
        late = [at for at in provider.books.refused if at > 120]
        served = sum(cost for at, cost in provider.books.served_at if 120 <= at < 420)
        assert len(late) <= 12, "of about 500 requests"
        assert served >= 0.95 * 5 * TPM

    in_no_time(scene())


@pytest.mark.parametrize("count", [1, 4])
def test_429s_by_chance_do_not_bring_everything_to_a_crawl(count: int) -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(), headers=False, mishaps=0.05)
        async with world(clock, provider, count, Terms()) as run:
            for process in range(count):
                run.backlog(process, 12_500)
            await run.run(60)
            first = provider.books.tokens
            await run.run(120)
        later = provider.books.tokens - first
        assert first >= 1_000_000, "a safe start alone is 40,000 a minute"
        assert later >= 2_000_000
        assert len(provider.books.refused) >= 5

    in_no_time(scene())


def test_without_headers_an_empty_bucket_at_first_is_soon_made_up_for() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=3_000, tpm=5 * TPM, level=0.0), headers=False)
        async with world(clock, provider, 1, Terms()) as run:
            run.backlog(0, 10_000)
            await run.run(120)
        assert provider.books.tokens >= 0.9 * 2 * 5 * TPM
        assert len(provider.books.refused) <= 60, "of about 1,000 requests"

    in_no_time(scene())


def test_shares_follow_the_weights_and_idle_ones_are_lent() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        tenants = Tenants((TenantConfig(project="a", weight=3), TenantConfig(project="b")))
        async with world(clock, provider, 4, KNOWN, tenants) as run:
            run.backlog(0, 10_000, project="b")
            run.backlog(1, 10_000, project="b")
            await run.run(60)
            alone = provider.books.by_project["b"]
            run.backlog(2, 5_000, project="a")
            run.backlog(3, 20_000, project="a")
            await run.run(10)
            before = provider.books.by_project.copy()
            await run.run(180)
            both = provider.books.by_project - before
        assert alone >= 0.97 * TPM
        assert both["a"] / both["b"] == pytest.approx(3, rel=0.05)
        assert both.total() == pytest.approx(3 * TPM, rel=0.03)

    in_no_time(scene())


def test_eight_equal_projects_over_four_processes_get_equal_shares() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 4, KNOWN) as run:
            for number in range(8):
                run.backlog(number % 4, 2_000 + 2_000 * number, project=f"p{number}")
            await run.run(180)
        got = list(provider.books.by_project.values())
        assert sum(got) ** 2 / (8 * sum(tokens**2 for tokens in got)) >= 0.95

    in_no_time(scene())


def test_a_third_project_with_a_little_is_done_soon() -> None:
    async def scene() -> float:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 3, KNOWN) as run:
            run.backlog(0, 50_000, project="a")
            run.backlog(1, 50_000, project="b")
            run.backlog(2, 25_000, project="c", lanes=1, count=1, start=60)
            await run.run(120)
            return run.waits["c"][0]

    alone_at_its_share = 25_000 / (TPM / 60 / 3)
    assert in_no_time(scene()) <= 2 * alone_at_its_share


def test_urgent_work_overtakes_a_backlog_that_hardly_notices() -> None:
    async def scene(urgent: bool) -> tuple[int, list[float], int]:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 4, KNOWN) as run:
            for process in range(4):
                run.backlog(process, 50_000, project="bulk")
            if urgent:
                for process in range(2):
                    run.backlog(
                        process,
                        200,
                        project="live",
                        priority=Priority.URGENT,
                        lanes=1,
                        start=10,
                        every=1.0,
                    )
            await run.run(300)
        refused = len(provider.books.refused)
        return provider.books.by_project["bulk"], run.waits["live"], refused

    alone, _, _ = in_no_time(scene(False))
    beside, waits, refused = in_no_time(scene(True))
    assert len(waits) > 300
    assert statistics.median(waits) < 1.0
    assert statistics.quantiles(waits, n=100)[98] < 3.0
    assert beside >= 0.95 * alone
    assert refused == 0


def test_bulk_work_goes_on_under_endless_urgent_work() -> None:
    async def scene() -> int:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 2, KNOWN) as run:
            run.backlog(0, 20_000, project="live", priority=Priority.URGENT)
            run.backlog(1, 20_000, project="bulk")
            await run.run(300)
        return sum(1 for wait in run.waits["bulk"])

    assert in_no_time(scene()) >= 300 // 15


@pytest.mark.parametrize("headers", [True, False])
def test_a_limit_that_is_halved_and_restored_is_followed_without_a_storm(headers: bool) -> None:
    async def scene() -> None:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM), headers=headers)
        async with world(clock, provider, 4, KNOWN) as run:
            for process in range(4):
                run.backlog(process, 10_000)
            await run.run(60)
            provider.limits = Limits(rpm=RPM // 2, tpm=TPM // 2)
            await run.run(180)
            first = provider.books.refused[:1]
            settled = first[0] + 30 if first else 60.0
            refused = [at for at in provider.books.refused if at > settled]
            half = sum(cost for at, cost in provider.books.served_at if 180 <= at < 240)
            provider.limits = Limits(rpm=RPM, tpm=TPM)
            await run.run(180)
        late = sum(cost for at, cost in provider.books.served_at if 360 <= at < 420)
        assert len(refused) <= (0 if headers else 6), "it tries again, every half minute"
        assert half >= 0.9 * TPM / 2
        assert late >= 0.97 * TPM
        assert not [at for at in provider.books.refused if at > 260]

    in_no_time(scene())


def test_a_process_that_falls_silent_does_not_hold_the_others_up() -> None:
    async def scene() -> int:
        clock = VirtualClock()
        provider = Provider(clock, Limits(rpm=RPM, tpm=TPM))
        async with world(clock, provider, 2, KNOWN) as run:
            run.backlog(0, 50_000, project="dead")
            await run.run(30)
            talk = run.limiters[0]._talk  # as if it had been killed: no word any more
            assert talk is not None
            talk.cancel()
            run.backlog(1, 10_000, project="alive")
            await run.run(60)
        return sum(cost for at, cost in provider.books.served_at if 30 <= at < 90)

    assert in_no_time(scene()) >= 0.9 * TPM
