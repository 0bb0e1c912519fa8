"""Random traces of exchanges, for the pure step and for the backends that repeat it."""

from hypothesis import strategies as st

from embedding_pipeline.limits.protocol import Ask, News, Terms, Want

CLIENTS = ("a", "b", "c")
LIMITS = st.sampled_from([-1, 0, 1, 3, 500, 60_000, 1_000_000, 5_000_000, 10**12])

terms = st.builds(
    Terms,
    tokens=st.sampled_from([0, 0, 600, 1_000_000, 5_000_000]),
    requests=st.sampled_from([0, 0, 3, 500, 10_000]),
    burst=st.sampled_from([1_000, 10_000, 45_000]),
    reserve=st.sampled_from([0, 2_000]),
    ramp=st.integers(0, 1),
)

wants = st.builds(
    Want,
    project=st.sampled_from(["x", "y", "z|1", "größe"]),
    weight=st.sampled_from([1, 333, 1_000, 3_000]),
    priority=st.integers(0, 2),
    age=st.integers(0, 30_000),
    tokens=st.integers(1, 300_000),
)

pairs = st.tuples(st.integers(0, 500_000), st.integers(0, 20))

news = st.builds(
    News,
    kind=st.sampled_from(["ok", "ok", "refused", "ramp"]),
    resource=st.sampled_from(["", "tokens", "requests"]),
    tokens=st.integers(1, 300_000),
    granted_at=st.integers(1_790_000_000_000, 1_790_000_200_000),
    retry_after=st.sampled_from([0, 0, 20, 2_812, 10**9]),
    limits=st.tuples(LIMITS, LIMITS),
    remaining=st.tuples(LIMITS, LIMITS),
    project=st.sampled_from(["x", "größe"]),
    priority=st.integers(0, 2),
    sustained=st.sampled_from([(0, 0), (500, 2), (3_000_000, 200), (10**10, 10**8)]),
)

asks = st.builds(
    Ask,
    client=st.sampled_from(CLIENTS),
    wants=st.lists(wants, max_size=4).map(tuple),
    returned=st.one_of(st.just((0, 0)), pairs),
    out=st.one_of(st.just((0, 0)), pairs),
    news=st.lists(news, max_size=2).map(tuple),
)

steps = st.sampled_from(
    [0, 1, -1_500, -100_000, 7, 150, 1_000, 4_999, 5_000, 12_345, 60_000, 1_200_000]
)

traces = st.lists(st.tuples(steps, asks), min_size=1, max_size=25)
"""Milliseconds that pass, then what somebody asks."""
