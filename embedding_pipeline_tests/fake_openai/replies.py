"""The reply that carries vectors, whole or spoilt."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pybase64

from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline_tests.fake_openai.rules import MODELS, Request

ANSWERS = frozenset(model.answers_as for model in MODELS.values())

PRECOMPUTED = 64
"""How many different vectors the precomputed mode serves."""


def expected_vector(model: str, text: str, dimensions: int) -> npt.NDArray[np.float32]:
    """The right answer for a text: a prefix of its full vector, renormalised."""
    full = fake_vector(model, text, MODELS[model].dimensions)
    if dimensions == len(full):
        return full
    part = full[:dimensions].astype(np.float64)
    return (part / np.sqrt(part @ part)).astype(np.float32)


class Replies:
    """Makes replies. ``precomputed`` serves a few vectors over and over, for benchmarks."""

    def __init__(self, *, precomputed: bool = False) -> None:
        self._precomputed = precomputed
        self._bodies: dict[tuple[str, int, int, bool], bytes] = {}

    def whole(self, request: Request) -> bytes:
        """The reply as it should be."""
        if not self._precomputed:
            return _whole(request, list(request.texts))
        key = (request.model.name, len(request.texts), request.dimensions, request.base64)
        if key not in self._bodies:
            names = [f"precomputed {i % PRECOMPUTED}" for i in range(len(request.texts))]
            self._bodies[key] = _data(request, names)
        return self._bodies[key] + _tail(request)


def _whole(request: Request, texts: list[str]) -> bytes:
    return _data(request, texts) + _tail(request)


def _data(request: Request, texts: list[str]) -> bytes:
    model = request.model
    parts = []
    for index, text in enumerate(texts):
        vector = expected_vector(model.name, text, request.dimensions)
        shown = f'"{_base64(vector)}"' if request.base64 else json.dumps(vector.tolist())
        parts.append(f'{{"object":"embedding","index":{index},"embedding":{shown}}}')
    return f'{{"object":"list","data":[{",".join(parts)}],"model":"{model.answers_as}",'.encode()


def _tail(request: Request) -> bytes:
    """What differs between requests of as many texts: the bill."""
    usage = f'{{"prompt_tokens":{request.tokens},"total_tokens":{request.tokens}}}'
    return f'"usage":{usage}}}\n'.encode()


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return pybase64.b64encode_as_string(vector.astype("<f4").tobytes())


def _items(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[bytes], bytes]:
    """A fault in the list of items; ``change`` works in place."""

    def spoil(body: bytes) -> bytes:
        reply = json.loads(body)
        change(reply["data"])
        return json.dumps(reply).encode()

    return spoil


def _vector(
    change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> Callable[[bytes], bytes]:
    """A fault in the vector of the middle item."""

    def spoil(items: list[dict[str, Any]]) -> None:
        item = items[len(items) // 2]
        given = item["embedding"]
        packed = isinstance(given, str)
        raw = pybase64.b64decode(given) if packed else None
        vector = np.array(np.frombuffer(raw, "<f4") if raw else given, dtype=np.float32)
        vector = change(vector)
        item["embedding"] = _base64(vector) if packed else vector.tolist()

    return _items(spoil)


def _set(position: int, value: float) -> Callable[[npt.NDArray[np.float32]], Any]:
    def change(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        vector[position] = value
        return vector

    return change


def _field(name: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    def change(items: list[dict[str, Any]]) -> None:
        items[len(items) // 2][name] = value

    return change


def _extra(items: list[dict[str, Any]]) -> None:
    items.append({**items[0], "index": len(items)})


def _as_floats(items: list[dict[str, Any]]) -> None:
    for item in items:
        if isinstance(item["embedding"], str):
            raw = pybase64.b64decode(item["embedding"])
            item["embedding"] = np.frombuffer(raw, "<f4").tolist()


def _corrupt(items: list[dict[str, Any]]) -> None:
    text = items[-1]["embedding"]
    items[-1]["embedding"] = text[:5] + "*" + text[6:]


def _reply(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def spoil(body: bytes) -> bytes:
        reply = json.loads(body)
        change(reply)
        return json.dumps(reply).encode()

    return spoil


def _times(factor: int) -> Callable[[dict[str, Any]], object]:
    def change(reply: dict[str, Any]) -> None:
        tokens = reply["usage"]["total_tokens"] * factor
        reply["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}

    return change


ERROR_BODY = b'{"error":{"message":"upstream failed","type":"server_error","code":"upstream"}}'

REPLIES: dict[str, Callable[[bytes], bytes]] = {
    "reversed": _items(list.reverse),
    "floats": _items(_as_floats),
    "double_usage": _reply(_times(2)),
    "missing": _items(lambda items: items.pop()),
    "duplicated": _items(lambda items: items.append(dict(items[0]))),
    "replaced": _items(lambda items: items.__setitem__(-1, dict(items[0]))),
    "extra": _items(_extra),
    "index_out_of_range": _items(_field("index", 100_000)),
    "index_negative": _items(_field("index", -1)),
    "index_string": _items(_field("index", "0")),
    "index_missing": _items(lambda items: items[0].pop("index")),
    "nan": _vector(_set(0, float("nan"))),
    "inf": _vector(_set(-1, float("inf"))),
    "zero": _vector(lambda vector: vector * 0),
    "large": _vector(lambda vector: vector * 2),
    "short_vector": _vector(lambda vector: vector[:-1]),
    "wrong_dimensions": _vector(lambda vector: vector[: len(vector) // 2]),
    "empty_vector": _vector(lambda vector: vector[:0]),
    "null_embedding": _items(_field("embedding", None)),
    "no_embedding": _items(lambda items: items[0].pop("embedding")),
    "null_item": _reply(lambda reply: reply["data"].__setitem__(0, None)),
    "corrupt_base64": _items(_corrupt),
    "truncated_json": lambda body: body[: len(body) * 2 // 3],
    "not_json": lambda body: b"<html>welcome to the hotel wifi</html>",
    "empty_body": lambda body: b"",
    "null_body": lambda body: b"null",
    "error_in_200": lambda body: ERROR_BODY,
    "empty_data": _items(list.clear),
    "huge_usage": _reply(_times(1000)),
    "zero_usage": _reply(_times(0)),
    "negative_usage": _reply(_times(-1)),
    "no_usage": _reply(lambda reply: reply.pop("usage")),
    "null_usage": _reply(lambda reply: reply.__setitem__("usage", None)),
    "wrong_model": _reply(lambda reply: reply.__setitem__("model", "text-embedding-other")),
    "no_model": _reply(lambda reply: reply.pop("model")),
}
"""Ways to spoil a reply that was billed. The first three are odd, but right."""

HARMLESS = ("reversed", "floats", "double_usage")


def says_the_same(whole: bytes, spoilt: bytes) -> bool:
    """Whether a spoilt answer still says, in other words, what the whole one does.

    The usage may differ as far as it can be believed: by a factor of two.
    """
    right, given = _meaning(whole), _meaning(spoilt)
    if right is None or given is None:
        return False
    return given[0] == right[0] and 0 < given[1] <= 2 * right[1]


def usage_of(body: bytes) -> int:
    """The tokens an answer says it is billed for."""
    return int(json.loads(body)["usage"]["total_tokens"])


def _meaning(body: bytes) -> tuple[list[tuple[int, bytes]], int] | None:
    """Each index with its vector, and the usage; None where there is no such thing."""
    try:
        reply = json.loads(body)
        items = sorted((_index(item), _bytes(item["embedding"])) for item in reply["data"])
        usage = reply["usage"]["total_tokens"]
        return (items, usage) if reply["model"] in ANSWERS else None
    except (KeyError, TypeError, ValueError):
        return None


def _index(item: dict[str, Any]) -> int:
    index = item["index"]
    if type(index) is not int:
        raise TypeError
    return index


def _bytes(embedding: str | list[float]) -> bytes:
    if isinstance(embedding, str):
        return pybase64.b64decode(embedding, validate=True)
    return np.array(embedding, "<f4").tobytes()
