"""Caps of a file, and lines out and in."""

import json

import numpy as np
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.batch_api.files import EMPTY, FileCaps, Wanted, custom_id, request_line
from embedding_pipeline.batch_api.records import file_name, submission_of
from embedding_pipeline.batch_api.results import Delivered, Failed, parse_line
from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline.embedders.replies import Expected
from embedding_pipeline.records import Account, digest_of

EXPECTED = Expected("openai", 1, 8, (), 100)
DIGEST = digest_of("a text")


def body(vector: str, tokens: int = 3) -> dict[str, object]:
    """A reply with one vector."""
    item = {"object": "embedding", "index": 0, "embedding": vector}
    return {"data": [item], "model": "m", "usage": {"total_tokens": tokens}}


def line(**fields: object) -> bytes:
    """A line of a result file."""
    return json.dumps({"custom_id": custom_id(DIGEST), "error": None, **fields}).encode()


def good_vector() -> str:
    """A vector as it travels."""
    return pybase64.b64encode_as_string(fake_vector("m", "a text", 8).tobytes())


@given(
    lines=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), max_size=30),
    caps=st.builds(
        FileCaps,
        max_inputs=st.integers(1, 10),
        max_bytes=st.integers(1, 100),
        max_weight=st.none() | st.integers(1, 80),
    ),
)
def test_no_file_breaks_a_cap_except_by_its_only_text(
    lines: list[tuple[int, int]], caps: FileCaps
) -> None:
    files, size = [], EMPTY
    for bytes_, weight in lines:
        more = size.plus(bytes_, weight)
        if not more.within(caps):
            files.append(size)
            more = EMPTY.plus(bytes_, weight)
        size = more
    files.append(size)
    assert sum(file.inputs for file in files) == len(lines)
    assert sum(file.bytes for file in files) == sum(b for b, _ in lines)
    for file in files:
        if file.inputs > 1:
            assert file.inputs <= caps.max_inputs
            assert file.bytes <= caps.max_bytes
            assert caps.max_weight is None or file.weight <= caps.max_weight


@given(st.text(min_size=1))
def test_a_line_holds_exactly_the_text_and_names_its_key(text: str) -> None:
    wanted = Wanted(digest_of(text), text, 3, 5, Account("p"))
    made = request_line("a-model", wanted)
    assert made.count(b"\n") == 1
    assert made.endswith(b"\n")
    entry = json.loads(made)
    assert entry["body"] == {"model": "a-model", "input": [text], "encoding_format": "base64"}
    assert bytes.fromhex(entry["custom_id"]) == wanted.digest
    assert wanted.weight == 5


def test_a_good_line_is_a_vector() -> None:
    found = parse_line(line(response={"status_code": 200, "body": body(good_vector())}), EXPECTED)
    assert isinstance(found, Delivered)
    assert (found.digest, found.tokens) == (DIGEST, 3)
    np.testing.assert_array_equal(found.vector[0], fake_vector("m", "a text", 8))


@pytest.mark.parametrize(
    ("given", "code", "billed"),
    [
        (line(response={"status_code": 200, "body": body("AAAA")}), "invalid_reply", True),
        (line(response={"status_code": 200, "body": None}), "invalid_reply", True),
        (line(response={"status_code": 0, "body": {}}), "status_0", True),
        (line(response=None, error={"code": "batch_expired"}), "batch_expired", False),
        (
            line(response={"status_code": 400, "body": {"error": {"type": "bad", "code": None}}}),
            "bad",
            False,
        ),
        (line(response={"status_code": 429, "body": {}}), "status_429", False),
        (line(response=None), "status_none", False),
    ],
)
def test_a_line_without_a_vector_says_why(given: bytes, code: str, billed: bool) -> None:
    assert parse_line(given, EXPECTED) == Failed(DIGEST, code, billed)


@given(st.binary() | st.from_regex(r'\{"custom_id": ?(1|null|"ab"|"zz"|\[\])\}').map(str.encode))
def test_a_line_that_cannot_be_read_is_no_error(given: bytes) -> None:
    found = parse_line(given, EXPECTED)
    assert isinstance(found, Failed)
    assert found.digest is None
    assert found.maybe_billed


def test_a_file_is_known_by_its_name() -> None:
    assert submission_of("store", file_name("store", "one")) == "one"
    assert submission_of("other", file_name("store", "one")) is None
    assert submission_of("store", "notes.jsonl") is None
