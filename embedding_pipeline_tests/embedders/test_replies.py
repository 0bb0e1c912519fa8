"""A reply is believed entirely or not at all."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.embedders.replies import Expected, decode_reply
from embedding_pipeline.errors import InvalidReply
from embedding_pipeline.records import Vectors

MODEL = "text-embedding-3-small"


def good(count: int, dimensions: int = 6, packed: bool = True) -> tuple[dict[str, Any], Vectors]:
    vectors = fake_vectors(MODEL, [f"text {i}" for i in range(count)], dimensions)
    items = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(vector.tobytes()).decode() if packed else vector.tolist(),
        }
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 3 * count, "total_tokens": 3 * count}
    return {"object": "list", "data": items, "model": MODEL, "usage": usage}, vectors


def expected(count: int, dimensions: int = 6) -> Expected:
    return Expected("openai", count, dimensions, (MODEL,), 100 * count)


def decode(reply: object, count: int, dimensions: int = 6) -> tuple[Vectors, int]:
    vectors, usage, _ = decode_reply(json.dumps(reply).encode(), expected(count, dimensions))
    return vectors, usage.input_tokens


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 6, 256, 512, 1536, 3072])
@pytest.mark.parametrize("packed", [True, False])
def test_a_good_reply_is_decoded_exactly(dimensions: int, packed: bool) -> None:
    reply, vectors = good(5, dimensions, packed)
    found, tokens = decode(reply, 5, dimensions)
    assert found.dtype == np.float32
    assert found.tobytes() == vectors.tobytes()
    assert tokens == 15


@given(st.permutations(range(9)), st.booleans())
def test_the_index_decides_not_the_position(order: list[int], packed: bool) -> None:
    reply, vectors = good(9, packed=packed)
    reply["data"] = [reply["data"][i] for i in order]
    found, _ = decode(reply, 9)
    assert found.tobytes() == vectors.tobytes()


def test_base64_and_floats_may_be_mixed() -> None:
    reply, vectors = good(4)
    reply["data"][2]["embedding"] = vectors[2].tolist()
    found, _ = decode(reply, 4)
    assert found.tobytes() == vectors.tobytes()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(),
    st.text(max_size=12),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=2)), max_size=7),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@given(st.data())
def test_a_mutated_reply_is_right_or_refused(data: st.DataObject) -> None:
    """Whatever one value of the reply becomes: the vectors are right, or there are none."""
    reply, vectors = good(4, packed=data.draw(st.booleans()))
    where = data.draw(st.sampled_from(["index", "embedding", "item", "data", "model", "usage"]))
    junk = data.draw(JUNK)
    if where in ("index", "embedding"):
        reply["data"][data.draw(st.integers(0, 3))][where] = junk
    elif where == "item":
        reply["data"][data.draw(st.integers(0, 3))] = junk
    else:
        reply[where] = junk
    try:
        found, _ = decode(reply, 4)
    except InvalidReply:
        return
    unchanged = [
        row.tobytes() == right.tobytes() for row, right in zip(found, vectors, strict=True)
    ]
    assert where == "embedding" or all(unchanged)
    assert sum(unchanged) >= 3
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=0.011)


@given(st.data())
def test_items_lost_or_doubled_are_refused(data: st.DataObject) -> None:
    reply, _ = good(6)
    picks = data.draw(
        st.lists(st.integers(0, 5), max_size=8).filter(lambda p: sorted(p) != [*range(6)])
    )
    reply["data"] = [reply["data"][i] for i in picks]
    with pytest.raises(InvalidReply):
        decode(reply, 6)


@given(st.integers(0, 200), st.binary(max_size=8))
def test_torn_and_scrambled_bytes_never_become_vectors(cut: int, noise: bytes) -> None:
    reply, vectors = good(2)
    body = json.dumps(reply).encode()
    spoilt = body[:cut] + noise + body[cut + len(noise) :]
    try:
        found, *_ = decode_reply(spoilt, expected(2))
    except InvalidReply:
        return
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=0.011)
    assert found.shape == vectors.shape


def _embedding(value: object) -> Callable[[dict[str, Any]], None]:
    def change(reply: dict[str, Any]) -> None:
        reply["data"][1]["embedding"] = value

    return change


def _packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def _usage(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda reply: reply.__setitem__("usage", value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["data"].pop(), "2 items for 3 texts"),
        (lambda r: r["data"].append(r["data"][0]), "4 items for 3 texts"),
        (lambda r: r["data"][1].pop("index"), "position 1 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", "1"), "position 1 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", 1.0), "position 1 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", True), "position 1 has no possible index"),
        (lambda r: r["data"][0].__setitem__("index", False), "position 0 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", 3), "position 1 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", -2), "position 1 has no possible index"),
        (lambda r: r["data"][1].__setitem__("index", 2), "index 1 is missing"),
        (_embedding(None), "position 1 is not a list of numbers"),
        (_embedding([]), "position 1 has 0, not 6"),
        (_embedding([0.5] * 4), "position 1 has 4, not 6"),
        (_embedding([1, 0, 0, 0, 0, "0"]), "position 1 is not a list of numbers"),
        (_embedding([[1.0], [0.0]]), "position 1 has 2x1, not 6"),
        (_embedding([[1.0], [0.0, 1.0]]), "position 1 cannot be decoded"),
        (_embedding([10**400, 0, 0, 0, 0, 0]), "position 1 is not a list of numbers"),
        (_embedding([1e39, 0, 0, 0, 0, 0]), "position 1 is not finite"),
        (_embedding([float("nan")] * 6), "position 1 is not finite"),
        (_embedding([0, 0, 0, 0, 0, 0]), "position 1 has not unit norm"),
        (_embedding([0, 0, 0, 0, 0, 1.02]), "position 1 has not unit norm"),
        (_embedding(_packed(1, 0, 0)), "position 1 has 3, not 6"),
        (_embedding(_packed(float("inf"), 0, 0, 0, 0, 0)), "position 1 is not finite"),
        (_embedding(_packed(0, 0, 0, 0, 0, 0)), "position 1 has not unit norm"),
        (_embedding("*" * 32), "position 1 cannot be decoded"),
        (_embedding("\u00e9" * 32), "position 1 cannot be decoded"),
        (_embedding("AAA"), "position 1 cannot be decoded"),
        (_usage(None), "no usage"),
        (_usage({}), "not a number of tokens"),
        (_usage({"total_tokens": 9.0}), "not a number of tokens"),
        (_usage({"total_tokens": True}), "not a number of tokens"),
        (_usage({"total_tokens": 0}), "0 tokens is not possible"),
        (_usage({"total_tokens": -5}), "-5 tokens is not possible"),
        (_usage({"total_tokens": 301}), "301 tokens is not possible"),
        (lambda r: r.pop("model"), "does not name its model"),
        (lambda r: r.__setitem__("model", "text-embedding-3-large"), "another model"),
        (lambda r: r.__setitem__("data", None), "no list of items"),
        (lambda r: r.__setitem__("data", {}), "no list of items"),
    ],
)
def test_what_is_wrong_and_where_is_said(change: Callable[[Any], object], says: str) -> None:
    reply, _ = good(3)
    change(reply)
    with pytest.raises(InvalidReply, match=says) as caught:
        decode(reply, 3)
    assert caught.value.fault.maybe_billed
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"<html></html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "not an object"),
        (b"[]", "not an object"),
        (b"{}", "no list of items"),
        (b'{"error":{"message":"SECRET TEXT","code":"x"}}', "reports an error under status 200"),
        (b'{"data":[null]}', "another|name"),
    ],
)
def test_bodies_that_are_no_reply(body: bytes, says: str) -> None:
    with pytest.raises(InvalidReply, match=says) as caught:
        decode_reply(body, expected(1))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [MODEL, f"{MODEL}-v2", MODEL.upper(), f"openai/{MODEL}", f"a/b/{MODEL}@latest"],
)
def test_plausible_names_of_the_model(name: str) -> None:
    reply, _ = good(1)
    reply["model"] = name
    decode(reply, 1)


def test_servers_that_only_count_prompt_tokens() -> None:
    reply, _ = good(2)
    reply["usage"] = {"prompt_tokens": 11}
    assert decode(reply, 2)[1] == 11
