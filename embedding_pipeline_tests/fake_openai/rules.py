"""The caps of the endpoint, as a pure function of a request's body."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiter
import toktok

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.bodies import Answer

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 8192
MAX_REQUEST_TOKENS = 300_000


@dataclass(frozen=True)
class Model:
    """One model; money in nano-USD a token."""

    name: str
    dimensions: int
    price: int
    shortens: bool
    answers_as: str


MODELS = {
    model.name: model
    for model in (
        Model("text-embedding-3-small", 1536, 20, True, "text-embedding-3-small"),
        Model("text-embedding-3-large", 3072, 130, True, "text-embedding-3-large"),
        Model("text-embedding-ada-002", 1536, 100, False, "text-embedding-ada-002-v2"),
    )
}


@dataclass(frozen=True)
class Request:
    """A request that passed every check.

    Attributes:
        tokens: what it is billed, by cl100k.
        estimate: what it is charged against the limits: UTF-8 bytes / 4.
    """

    model: Model
    texts: Sequence[str]
    dimensions: int
    base64: bool
    tokens: int
    estimate: int


def check(content: bytes, *, count_tokens: bool = True) -> Request | Answer:
    """The request as understood, or the refusal."""
    try:
        body = jiter.from_json(content, cache_mode="keys")
    except ValueError:
        return bodies.refusal(400, "We could not parse the JSON body of your request.")
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return bodies.refusal(400, "you must provide a model parameter")
    model = MODELS.get(body["model"])
    if model is None:
        return bodies.unknown_model(body["model"])
    return _check_fields(body, model) or _check_texts(body, model, count_tokens)


def _check_fields(body: dict[str, Any], model: Model) -> Answer | None:
    dimensions = body.get("dimensions")
    if dimensions is not None:
        if not model.shortens:
            return bodies.no_dimensions()
        if type(dimensions) is not int or not 1 <= dimensions <= model.dimensions:
            message = f"Invalid value for 'dimensions' = {dimensions}. Must be less than or equal "
            return bodies.refusal(400, f"{message}to {model.dimensions}.", param="dimensions")
    if body.get("encoding_format", "float") not in ("float", "base64"):
        return bodies.refusal(400, "Invalid value for 'encoding_format'", param="encoding_format")
    return None


def _check_texts(body: dict[str, Any], model: Model, count_tokens: bool) -> Request | Answer:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts) or not texts:
        return bodies.bad_input()
    if len(texts) > MAX_INPUTS:
        return bodies.too_many_inputs(len(texts))
    quarters = [_quarter(text) for text in texts]
    counts = toktok.batch_count(texts, "cl100k_base", threads=1) if count_tokens else quarters
    for index, tokens in enumerate(counts):
        if tokens > MAX_INPUT_TOKENS:
            return bodies.input_too_long(index)
    estimate = sum(quarters)
    if max(estimate, sum(counts)) > MAX_REQUEST_TOKENS:
        return bodies.request_too_long(max(estimate, sum(counts)))
    dimensions = body.get("dimensions") or model.dimensions
    base64 = body.get("encoding_format") == "base64"
    return Request(model, texts, dimensions, base64, sum(counts), estimate)


def _quarter(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return -(-size // 4)
