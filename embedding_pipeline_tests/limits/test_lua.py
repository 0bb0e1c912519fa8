"""acquire.lua is the same step as ``sharing.exchange``: same traces, same states, same answers."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from redis import Redis

from embedding_pipeline.limits.protocol import Ask, Terms
from embedding_pipeline.limits.redis import answer_from, script
from embedding_pipeline.limits.sharing import exchange
from embedding_pipeline.limits.state import State, from_json
from embedding_pipeline_tests.limits import traces

START = 1_790_000_000_000


@pytest.fixture(scope="module")
def server(redis_server: str) -> Iterator[Redis]:
    with Redis.from_url(redis_server) as client:
        yield client


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(terms=traces.terms, trace=traces.traces)
def test_lua_and_python_come_to_the_same(
    server: Redis, terms: Terms, trace: list[tuple[int, Ask]]
) -> None:
    step = server.register_script(script())
    server.delete("trace")
    now, state = START, None
    for elapsed, ask in trace:
        now += elapsed
        state, expected = exchange(state, terms, ask, now)
        question = json.dumps({"terms": asdict(terms), "ask": asdict(ask)})
        reply = step(keys=["trace"], args=[question, now])
        stored: State = from_json(server.get("trace") or b"")
        assert answer_from(reply) == expected
        assert stored == state


def test_the_script_says_its_units_on_its_first_line() -> None:
    first = script().splitlines()[0]
    assert first.startswith("-- Units:")
    assert "ms" in first


def test_the_servers_clock_is_used_where_no_instant_is_given(server: Redis) -> None:
    server.delete("trace")
    question = json.dumps({"terms": asdict(Terms()), "ask": asdict(Ask("a"))})
    seconds, micros = server.time()
    answer = answer_from(server.register_script(script())(keys=["trace"], args=[question, ""]))
    assert 0 <= answer.now - (seconds * 1000 + micros // 1000) < 10_000
