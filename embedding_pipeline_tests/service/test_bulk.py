"""Streams of batches: in order, every row decided once, paid once, whatever goes wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.errors import (
    CircuitOpen,
    InputRefused,
    InvalidReply,
    KeyExhausted,
    ProviderError,
    ProviderRefused,
    RateLimited,
    RequestTooLarge,
    StateError,
    TransientProviderError,
)
from embedding_pipeline.planning.inputs import Policy
from embedding_pipeline.service.work import FilledBatch, Row, WorkBatch
from embedding_pipeline_tests.service.harness import (
    Provider,
    fault,
    read_books,
)
from embedding_pipeline_tests.service.streams import (
    DAYS,
    POISON,
    ROOMY,
    assert_right,
    batch,
    bulk,
    drain,
    portions,
    stream,
)
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

SPLIT = (InputRefused, RequestTooLarge, InvalidReply)
STOP = (
    RateLimited,
    KeyExhausted,
    ProviderRefused,
    CircuitOpen,
    TransientProviderError,
    StateError,
    LookupError,
)


short = st.sampled_from([f"text {n}" for n in range(12)])
words = st.one_of(
    short,
    st.sampled_from(["", "  \n", f"{POISON} 1", f"{POISON} 2"]),
    st.sampled_from(["long " * 20, "very long " * 15, "text 1" + " " * 80]),
)
streams = st.lists(st.lists(words, max_size=9), max_size=6)


@dataclass(frozen=True)
class Trouble:
    """The n-th call fails with this error; it may have been billed."""

    call: int
    error: type[Exception]
    billed: bool

    def make(self) -> Exception:
        if issubclass(self.error, ProviderError):
            return self.error("on purpose", fault(billed=self.billed))
        return self.error("on purpose")


troubles = st.builds(Trouble, st.integers(0, 6), st.sampled_from([*SPLIT, *STOP]), st.booleans())
policies = st.sampled_from(["reject", "truncate", "split_mean"])


def _batches(texts: Sequence[Sequence[str]]) -> list[WorkBatch]:
    half = len(texts) // 2
    return [batch(own, first=100 * n, day=DAYS[n >= half]) for n, own in enumerate(texts)]


def _provider() -> Provider:
    provider = Provider()
    provider.poison = lambda text: text.startswith(POISON)
    return provider


@settings(max_examples=40)
@given(
    texts=streams,
    policy=policies,
    window=st.sampled_from([1, 5, ROOMY]),
    together=st.sampled_from([0, 2, 9]),
)
async def test_any_stream_comes_out_in_order_with_every_row_decided_and_paid_once(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    policy: Policy,
    window: int,
    together: int,
) -> None:
    provider, batches = _provider(), _batches(texts)
    source = portions(batches, together) if together else stream(batches)
    with open_store(tmp_path_factory.mktemp("state")) as store:
        run = bulk(store, provider, source, policy=policy, window_rows=window)
        filled = await drain(run)
        books = await store.read(read_books)
    assert [one.work for one in filled] == batches
    for one in filled:
        assert_right(one, policy)
    assert set(provider.billed.values()) <= {1}, "each text is paid once"
    assert (books.settled, books.unknown) == (provider.tokens, 0)
    assert (books.flights, books.claims, books.requests) == (0, 0, len(provider.calls))
    assert sum(tally.input_tokens for tally in run.tallies.values()) == provider.tokens
    assert run.progress().done == sum(map(len, batches))
    assert run.progress().input_tokens == provider.tokens
    for day, tally in run.tallies.items():
        mine = [one for one in filled if one.work.partition == day]
        status = np.concatenate([one.status for one in mine])
        assert tally.chunks == len(status)
        assert tally.embedded == (status == Row.EMBEDDED).sum()
        assert tally.cached == (status == Row.CACHED).sum()
        assert tally.quarantined == (status == Row.REFUSED).sum()


@settings(max_examples=50)
@given(texts=streams, trouble=troubles, window=st.sampled_from([3, ROOMY]))
async def test_an_error_is_raised_or_costs_nothing_but_itself_and_a_rerun_pays_the_rest(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    trouble: Trouble,
    window: int,
) -> None:
    provider, batches, filled = _provider(), _batches(texts), list[FilledBatch]()
    provider.script = {trouble.call: trouble.make()}
    with open_store(tmp_path_factory.mktemp("state")) as store:
        first = bulk(store, provider, stream(batches), window_rows=window)
        stopped = None
        try:
            await drain(first, filled)
        except trouble.error as exc:
            stopped = exc
        books = await store.read(read_books)
        struck = len(provider.calls) > trouble.call
        assert (stopped is not None) == (struck and trouble.error in STOP)
        assert [one.work for one in filled] == batches[: len(filled)]
        assert (books.flights, books.claims) == (0, 0)
        assert books.settled == provider.tokens
        _assert_booked(trouble, struck, books.unknown)
        provider.script = {}
        second = await drain(bulk(store, provider, stream(batches)))
        books = await store.read(read_books)
    assert [one.work for one in second] == batches
    for one in second:
        assert_right(one, "reject")
    assert set(provider.billed.values()) <= {1}, "what had landed is not paid again"
    assert books.settled == provider.tokens


def _assert_booked(trouble: Trouble, struck: bool, unknown: int) -> None:
    foreign = trouble.error in {StateError, LookupError}
    sent = trouble.error is not CircuitOpen  # our own breaker: nothing left the process
    may_be_billed = struck and sent and (trouble.billed or foreign)
    assert (unknown > 0) == may_be_billed
