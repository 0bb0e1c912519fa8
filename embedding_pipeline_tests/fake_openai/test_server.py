"""The fake API is what the facts about the real one say, as the plain SDK sees it."""

import asyncio
import json
from pathlib import Path

import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.buckets import Limits, go_duration
from embedding_pipeline_tests.fake_openai.faults import Fault, Schedule, schedule_from_json
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai,
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.rules import MODELS, Request, check
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

SMALL = "text-embedding-3-small"
THREE_HUNDRED = [f"{i} " + "word " * 1000 for i in range(300)]


def client(fake: FakeOpenAI | FakeProcess, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=fake.base_url, max_retries=0)


async def test_the_plain_sdk_gets_vectors(fake_openai: FakeOpenAI) -> None:  # noqa: F811
    async with client(fake_openai) as api:
        reply = await api.embeddings.create(model=SMALL, input=["one", "two"])
        floats = await api.embeddings.create(model=SMALL, input="one", encoding_format="float")
        legacy = await api.embeddings.create(model="text-embedding-ada-002", input="one")
    assert np.array_equal(
        np.array(reply.data[1].embedding, np.float32), expected_vector(SMALL, "two", 1536)
    )
    assert floats.data[0].embedding == pytest.approx(reply.data[0].embedding, abs=1e-7)
    assert reply.usage.total_tokens == 2
    assert legacy.model == "text-embedding-ada-002-v2"


async def test_dimensions_are_a_prefix_renormalised(fake_openai: FakeOpenAI) -> None:  # noqa: F811
    async with client(fake_openai) as api:
        reply = await api.embeddings.create(model=SMALL, input="one", dimensions=256)
    found = np.array(reply.data[0].embedding)
    full = expected_vector(SMALL, "one", 1536)[:256]
    assert found == pytest.approx(full / np.linalg.norm(full), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"model": SMALL, "input": ""}, 400, None, "'$.input' is invalid"),
        ({"model": SMALL, "input": []}, 400, None, "'$.input' is invalid"),
        ({"model": SMALL, "input": ["a", ""]}, 400, None, "'$.input' is invalid"),
        ({"model": SMALL, "input": ["a", 7]}, 400, None, "'$.input' is invalid"),
        ({"model": SMALL}, 400, None, "'$.input' is invalid"),
        ({"model": SMALL, "input": ["a"] * 2049}, 400, None, "Array length must be 2048 or less"),
        ({"model": SMALL, "input": ["a", "word " * 8200]}, 400, None, "'input[1]': maximum"),
        ({"model": SMALL, "input": THREE_HUNDRED}, 400, "max_tokens_per_request", "max 300000"),
        ({"model": SMALL, "input": "a", "dimensions": 1537}, 400, None, "dimensions"),
        ({"model": SMALL, "input": "a", "dimensions": 0}, 400, None, "dimensions"),
        ({"model": SMALL, "input": "a", "encoding_format": "x"}, 400, None, "encoding_format"),
        ({"model": "text-embedding-ada-002", "input": "a", "dimensions": 5}, 400, None, "specify"),
        ({"model": "gpt-9", "input": "a"}, 404, "model_not_found", "does not exist"),
        ({"input": "a"}, 400, None, "model"),
        ([], 400, None, "model"),
        ("{", 400, None, "parse"),
    ],
)
def test_what_it_refuses(body: object, status: int, code: str | None, says: str) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = check(content.encode())
    assert not isinstance(answer, Request)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert says in error["message"]


@pytest.mark.parametrize("text", [" ", "\0", "word " * 8191, "日本" * 2000])
def test_what_it_takes(text: str) -> None:
    assert isinstance(check(json.dumps({"model": SMALL, "input": [text]}).encode()), Request)


def test_the_cap_on_a_request_goes_by_tokens_and_by_bytes() -> None:
    """Digits have more tokens than bytes / 4, kana fewer: either count can be too high."""
    digits = json.dumps({"model": SMALL, "input": ["1a2b3c4d" * 800] * 60})
    spaces = json.dumps({"model": SMALL, "input": [" " * 6000] * 210})
    for content in (digits, spaces):
        answer = check(content.encode())
        assert not isinstance(answer, Request)
        assert json.loads(answer.body)["error"]["type"] == "max_tokens_per_request"


async def test_wrong_keys_are_refused_and_counted(fake_openai: FakeOpenAI) -> None:  # noqa: F811
    async with client(fake_openai, "sk-other-key-0000") as api:
        with pytest.raises(openai.AuthenticationError) as caught:
            await api.embeddings.create(model=SMALL, input="one")
    assert caught.value.code == "invalid_api_key"
    assert fake_openai.books.keys == {"sk-other-key-0000": 1}
    assert fake_openai.books.billed_requests == 0


async def test_the_books(fake_openai: FakeOpenAI) -> None:  # noqa: F811
    async with client(fake_openai) as api:
        await api.embeddings.create(model=SMALL, input=["one", "two"])
        await api.embeddings.create(model="text-embedding-3-large", input=["one"])
        fake_openai.fault(Fault("500", next=1))
        with pytest.raises(openai.InternalServerError):
            await api.embeddings.create(model=SMALL, input=["three"])
        fake_openai.fault(Fault("billed_reset", next=1))
        with pytest.raises(openai.APIConnectionError):
            await api.embeddings.create(model=SMALL, input=["three"])
    books = fake_openai.books
    assert (books.requests, books.billed_requests, books.inputs, books.tokens) == (4, 3, 4, 4)
    assert books.cost_nano_usd == 2 * 20 + 130 + 20
    assert (books.times_billed("one"), books.times_billed("three")) == (2, 1)
    assert books.billed_twice == 1
    assert books.faults == {"500": 1, "billed_reset": 1}
    assert Books.from_json(books.to_json()) == books
    fake_openai.reset()
    assert fake_openai.books.requests == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (2.812, "2.812s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3723.5, "1h2m3.5s"),
    ],
)
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_waits_match_those_seen_in_the_wild() -> None:
    """Limit 1,000,000, used 976,163, requested 70,716: please try again in 2.812 s."""
    limits = Limits(tpm=1_000_000)
    limits.admit(SMALL, 976_163, 0.0)
    answer, headers = limits.admit(SMALL, 70_716, 0.0)
    assert answer is not None
    message = json.loads(answer.body)["error"]["message"]
    assert "Limit 1000000, Used 976163, Requested 70716. Please try again in 2.813s" in message
    assert (answer.headers["retry-after-ms"], answer.headers["retry-after"]) == ("2813", "3")
    assert headers["x-ratelimit-remaining-tokens"] == "23837"
    assert headers["x-ratelimit-reset-tokens"] == "58.57s"


def test_a_request_above_the_bucket_can_never_pass() -> None:
    answer, _ = Limits(tpm=100).admit(SMALL, 101, 0.0)
    assert answer is not None
    assert json.loads(answer.body)["error"]["message"].startswith("Request too large")
    assert not answer.headers


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=60))
def test_limits_are_kept_and_refusals_are_free(steps: list[tuple[float, int]]) -> None:
    limits, now = Limits(rpm=10, tpm=100), 0.0
    passed: list[tuple[float, int]] = []
    for pause, tokens in steps:
        now += pause
        answer, _ = limits.admit(SMALL, tokens, now)
        if answer is None:
            passed.append((now, tokens))
            continue
        wait = int(answer.headers["retry-after-ms"]) / 1000
        again = Limits(rpm=10, tpm=100)
        for at, amount in passed:
            again.admit(SMALL, amount, at)
        assert again.admit(SMALL, tokens, now + wait + 0.001)[0] is None
    for at, _ in passed:
        window = [amount for when, amount in passed if at <= when <= at + 60]
        assert len(window) <= 2 * 10
        assert sum(window) <= 2 * 100


def strikes(fault: Fault, texts: list[str], seed: int = 0) -> list[bool]:
    schedule = Schedule([fault], seed)
    model = MODELS[SMALL]
    return [
        schedule.strike(Request(model, [text], 1536, True, 1, 1), text.encode()) is not None
        for text in texts
    ]


def test_faults_can_be_narrowed() -> None:
    texts = [f"text {i}" for i in range(400)]
    assert strikes(Fault("500"), texts) == [True] * 400
    assert sum(strikes(Fault("500", next=3), texts)) == 3
    assert strikes(Fault("500", marker="text 39"), texts).count(True) == 11
    assert sum(strikes(Fault("500", marker="text 39", next=2), texts)) == 2
    assert 60 < sum(strikes(Fault("500", rate=0.25), texts)) < 140


def test_rates_depend_on_the_seed_and_not_on_the_order() -> None:
    texts = [f"text {i}" for i in range(200)]
    fault = Fault("500", rate=0.5)
    forwards = dict(zip(texts, strikes(fault, texts), strict=True))
    backwards = dict(zip(texts[::-1], strikes(fault, texts[::-1]), strict=True))
    assert forwards == backwards
    assert strikes(fault, texts, seed=1) != strikes(fault, texts, seed=2)
    assert len(set(strikes(fault, ["again"] * 50))) == 2


def test_unknown_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="no fault is called 501"):
        schedule_from_json(b'{"faults":[{"kind":"501"}]}')


async def test_the_process_has_the_same_controls(
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    controls = fake_openai_process
    await asyncio.to_thread(controls.fault, Fault("503_overloaded", next=1))
    async with client(controls) as api:
        with pytest.raises(openai.InternalServerError):
            await api.embeddings.create(model=SMALL, input=["one"])
        await api.embeddings.create(model=SMALL, input=["one"])
        await asyncio.to_thread(controls.limit, rpm=1)
        await api.embeddings.create(model=SMALL, input=["one"])
        with pytest.raises(openai.RateLimitError):
            await api.embeddings.create(model=SMALL, input=["one"])
    books = await asyncio.to_thread(lambda: controls.books)
    assert books.statuses == {"503": 1, "200": 2, "429": 1}
    assert books.times_billed("one") == 2


def test_books_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "books.json"

    async def embed(fake: FakeProcess) -> None:
        async with client(fake, "sk-own") as api:
            await api.embeddings.create(model=SMALL, input=["one"])

    for _ in range(2):
        with process("--state-file", str(file), "--key", "sk-own") as fake:
            asyncio.run(embed(fake))
    assert Books.from_json(file.read_bytes()).times_billed("one") == 2
