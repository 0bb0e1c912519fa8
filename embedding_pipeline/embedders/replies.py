"""From the bytes of a reply to vectors that are certainly the right ones.

Belongs here: parsing and checking a success of the embeddings endpoint. Pure: no provider,
no clock. Does not belong here: errors the API reports (``policy``), or sending anything.

The API's promises are not taken on trust: the SDK hands out replies with items missing,
repeated or reordered, with NaN, zero or short vectors, without complaint. What fails a
check is ``InvalidReply``, which is transient, and never a vector. One thing cannot be
seen: vectors permuted under right-looking indexes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jiter
import numpy as np
import numpy.typing as npt
import pybase64

from embedding_pipeline.errors import InvalidReply, ProviderFault
from embedding_pipeline.records import Usage, Vectors

LEAST_NORM: Final = 0.99
MOST_NORM: Final = 1.01
FLOAT_BYTES: Final = 4
MOST_NAME: Final = 255


@dataclass(frozen=True)
class Expected:
    """What a reply must be like to be believed.

    Attributes:
        provider: name of the provider, for the error.
        count: number of texts sent.
        dimensions: length of every vector.
        models: beginnings of model names that are right, lower case; empty to skip the
            check. What precedes the last ``/`` of the reply's name is left out.
        most_tokens: no honest bill can be higher (a token is at least a byte).
    """

    provider: str
    count: int
    dimensions: int
    models: Sequence[str]
    most_tokens: int


class _Doubt(Exception):
    """A check failed; says which and where, in words without content."""


class Reply(NamedTuple):
    """What is believed of a reply.

    Attributes:
        vectors: float32, shape ``(count, dimensions)``, perhaps read-only.
        usage: what was billed.
        model: the model's name as the server says it, or "".
    """

    vectors: Vectors
    usage: Usage
    model: str


def decode_reply(content: bytes, expected: Expected) -> Reply:
    """Vectors in the order of the texts, what was billed, and which model answered.

    Vectors arrive as base64 of little-endian float32, or as lists of numbers from servers
    that know nothing else. They are checked to have unit norm, and then left as they came.

    Raises:
        InvalidReply: any check failed.
    """
    return _believed(lambda: _decode(_parse(content), expected), expected)


def decode_body(body: object, expected: Expected) -> Reply:
    """The same for a reply that is parsed already. Raises InvalidReply."""
    return _believed(lambda: _decode(_object(body), expected), expected)


def _believed(decode: Callable[[], Reply], expected: Expected) -> Reply:
    try:
        return decode()
    except _Doubt as doubt:
        reason = str(doubt)
    raise InvalidReply(
        f"{expected.provider} sent a reply that cannot be trusted: {reason}; "
        "it may succeed when tried again",
        ProviderFault(expected.provider, status=200, maybe_billed=True),
    )


def _decode(reply: dict[str, Any], expected: Expected) -> Reply:
    items = reply.get("data")
    if not isinstance(items, list):
        raise _Doubt("it has no list of items")
    if len(items) != expected.count:
        raise _Doubt(f"{len(items)} items for {expected.count} texts")
    model = reply.get("model")
    _check_model(model, expected.models)
    usage = _usage(reply.get("usage"), expected.most_tokens)
    order = _order(items)
    vectors = _vectors(items, expected.dimensions)
    _check_norms(vectors)
    vectors = vectors if order is None else vectors[order]
    return Reply(vectors, usage, model[:MOST_NAME] if isinstance(model, str) else "")


def _parse(content: bytes) -> dict[str, Any]:
    if not content:
        raise _Doubt("it is empty")
    try:
        reply = jiter.from_json(content, cache_mode="keys")
    except (ValueError, RecursionError):
        raise _Doubt("it is not JSON, or torn off") from None
    return _object(reply)


def _object(reply: object) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise _Doubt("it is not an object")
    if "data" not in reply and "error" in reply:
        raise _Doubt("it reports an error under status 200")
    return reply


def _check_model(name: object, models: Sequence[str]) -> None:
    if not models:
        return
    if not isinstance(name, str):
        raise _Doubt("it does not name its model")
    short = name.lower().rpartition("/")[2]
    if not any(short.startswith(model) for model in models):
        raise _Doubt("it comes from another model than the one asked")


def _usage(usage: object, most: int) -> Usage:
    if not isinstance(usage, dict):
        raise _Doubt("it has no usage")
    tokens = usage.get("total_tokens", usage.get("prompt_tokens"))
    if type(tokens) is not int:
        raise _Doubt("its usage is not a number of tokens")
    if not 0 < tokens <= most:
        raise _Doubt(f"a usage of {tokens} tokens is not possible for these texts")
    return Usage(tokens)


def _order(items: list[Any]) -> npt.NDArray[np.intp] | None:
    """Where to find the vector of each text; None when they are in order already."""
    indexes = _indexes(items)
    if indexes == list(range(len(items))) and set(map(type, indexes)) == {int}:
        return None
    for position, index in enumerate(indexes):
        if type(index) is not int or not 0 <= index < len(items):
            raise _Doubt(f"the item at position {position} has no possible index")
    order = np.full(len(items), -1, dtype=np.intp)
    order[np.array(indexes)] = np.arange(len(items))
    if (order < 0).any():
        raise _Doubt(f"the index {int(np.argmin(order))} is missing, another comes twice")
    return order


def _indexes(items: list[Any]) -> list[object]:
    try:
        return [item["index"] for item in items]
    except (KeyError, TypeError):  # some are no objects, or have none
        return [item.get("index") if isinstance(item, dict) else None for item in items]


def _vectors(items: list[Any], dimensions: int) -> Vectors:
    given = [item.get("embedding") for item in items]
    length = -(-dimensions * FLOAT_BYTES // 3) * 4  # base64, padding included
    if set(map(type, given)) == {str} and set(map(len, given)) == {length}:
        return _from_base64(given, dimensions)
    return _one_by_one(given, dimensions)


def _from_base64(given: list[str], dimensions: int) -> Vectors:
    """Every vector is a string of the right length: usually one decoding for all of them."""
    size = dimensions * FLOAT_BYTES
    try:
        if size % 3 == 0:  # no padding, so that the strings may be joined
            raw = pybase64.b64decode("".join(given), validate=True)
        else:
            raw = b"".join([pybase64.b64decode(vector, validate=True) for vector in given])
    except ValueError:
        return _one_by_one(given, dimensions)  # find the one to blame
    if len(raw) != size * len(given):
        return _one_by_one(given, dimensions)
    return np.frombuffer(raw, dtype="<f4").reshape(len(given), dimensions)


def _one_by_one(given: Sequence[object], dimensions: int) -> Vectors:
    vectors = np.empty((len(given), dimensions), dtype=np.float32)
    for position, vector in enumerate(given):
        values = _numbers(vector, position)
        if values.shape != (dimensions,):
            found = "x".join(map(str, values.shape))
            raise _Doubt(f"the vector at position {position} has {found}, not {dimensions} numbers")
        with np.errstate(over="ignore"):  # what overflows is found by its norm
            vectors[position] = values
    return vectors


def _numbers(vector: object, position: int) -> npt.NDArray[Any]:
    try:
        if isinstance(vector, str):
            return np.frombuffer(pybase64.b64decode(vector, validate=True), dtype="<f4")
        values = np.array(vector)
    except ValueError:
        raise _Doubt(f"the vector at position {position} cannot be decoded") from None
    if values.dtype.kind not in "fiu":
        raise _Doubt(f"the vector at position {position} is not a list of numbers")
    return values


def _check_norms(vectors: Vectors) -> None:
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        fine = (squares > LEAST_NORM**2) & (squares < MOST_NORM**2)  # false for NaN
    if fine.all():
        return
    position = int(np.argmin(fine))
    if not np.isfinite(vectors[position]).all():
        raise _Doubt(f"the vector at position {position} is not finite")
    raise _Doubt(f"the vector at position {position} has not unit norm")
