"""OpenAI's embeddings endpoint, and those that speak like it (Azure, compatible servers).

Belongs here: one call: texts out as JSON, vectors in as one numpy buffer. Does not belong
here: retrying, breaking, limiting (wrappers do), what errors mean (``policy``), whether a
reply can be believed (``replies``), the SDK (``sdk``, loaded on use).

The full vector is always asked for: shorter ones are views of it and cost nothing. Replies
are decoded on the loop: 1.5 µs a vector, 8 ms for the largest, and threads only contend.
"""

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr
from pydantic_core import PydanticSerializationError, to_json

from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.replies import Expected, decode_reply
from embedding_pipeline.errors import (
    ConfigurationError,
    InputRefused,
    ProviderFault,
    ServiceClosed,
)
from embedding_pipeline.records import EmbeddingResult

if TYPE_CHECKING:
    from embedding_pipeline.embedders.sdk import Endpoint

OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_INPUTS: Final = 2048
BYTES_PER_NUMBER: Final = 40
"""No server needs more for one component, written as JSON with indentation."""


@dataclass(frozen=True)
class Azure:
    """What Azure wants besides: the version of its API."""

    api_version: str


class OpenAIEmbedder(Embedder):
    """One model of one provider.

    The connection pool is made on first use, in the loop that uses it. ``OPENAI_ORG_ID`` and
    ``OPENAI_PROJECT_ID`` are honoured by the SDK itself.

    Args:
        spec: the model.
        api_key: the key. No repr, log or error of this class shows it.
        provider: the provider's name in the settings.
        base_url: where it is, up to and including ``/v1``; None is OpenAI. Azure: the resource.
        deployment: what the server calls the model, where it is not the model's own name.
        azure: given for Azure, which wants its own paths and headers.
        timeout_seconds: deadline of one call, from connecting to the last byte.
        max_connections: size of the pool; calls beyond wait for a connection.
        clock: for servers that name a date to wait for.

    Raises:
        ConfigurationError: the key cannot be one.
    """

    def __init__(
        self,
        spec: ModelSpec,
        api_key: str,
        *,
        provider: str = "openai",
        base_url: str | None = None,
        deployment: str | None = None,
        azure: Azure | None = None,
        timeout_seconds: float = 120.0,
        max_connections: int = 16,
        clock: Clock | None = None,
    ) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigurationError(
                f"the API key of {provider} is empty or holds characters no key has; "
                "check the environment variable it comes from"
            )
        self.space = spec.space
        self.provider = provider
        self._key = SecretStr(api_key)
        self._base_url = base_url or OPENAI_URL
        self._model = deployment or spec.space.model
        self._models = _plausible_names(spec.space.model, deployment)
        self._azure = azure
        self._timeout_seconds = timeout_seconds
        self._max_connections = max_connections
        self._clock = clock or SystemClock()
        self._opening = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.space}, provider={self.provider!r})"

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        body = self._body(texts)
        endpoint = self._endpoint or await self._open()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("an embedder belongs to the event loop that first used it")
        content, rates = await endpoint.post(body)
        reply = decode_reply(content, self._expected(len(texts), len(body)))
        return EmbeddingResult(
            reply.vectors, reply.usage, self.provider, rate_headers=rates, model=reply.model
        )

    async def aclose(self) -> None:
        self._closed = True
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.aclose()

    async def _open(self) -> "Endpoint":
        async with self._opening:
            if self._closed:
                raise ServiceClosed(f"the connection to {self.provider} is closed; open a new one")
            if self._endpoint is None:
                sdk = await asyncio.to_thread(
                    importlib.import_module, "embedding_pipeline.embedders.sdk"
                )
                self._loop = asyncio.get_running_loop()
                self._endpoint = sdk.Endpoint(
                    provider=self.provider,
                    key=self._key.get_secret_value(),
                    base_url=self._base_url,
                    azure=azure_terms(self._model, self._azure),
                    max_connections=self._max_connections,
                    timeout_seconds=self._timeout_seconds,
                    most_bytes=MAX_INPUTS * self.space.native_dimensions * BYTES_PER_NUMBER,
                    clock=self._clock,
                )
            return self._endpoint

    def _body(self, texts: Sequence[str]) -> bytes:
        if not texts:
            raise ValueError("there is nothing to embed: give at least one text")
        request = {"model": self._model, "input": list(texts), "encoding_format": "base64"}
        try:
            return to_json(request)
        except PydanticSerializationError:
            index = next(i for i, text in enumerate(texts) if not _is_utf8(text))
        raise InputRefused(
            f"input {index} holds a lone surrogate and cannot be sent as UTF-8; replace it",
            ProviderFault(self.provider, code="not_utf8", input_index=index),
        )

    def _expected(self, count: int, most_tokens: int) -> Expected:
        dimensions = self.space.native_dimensions
        return Expected(self.provider, count, dimensions, self._models, most_tokens)


def _plausible_names(model: str, deployment: str | None) -> tuple[str, ...]:
    """How the server may call the model: with a suffix (``-v2``), or as Azure does."""
    names = [model.lower()]
    if deployment:
        names.append(deployment.lower())
    if model == "text-embedding-ada-002":
        names.append("ada")
    return tuple(names)


def azure_terms(deployment: str, azure: Azure | None) -> tuple[str, str] | None:
    """Deployment and API version as the SDK wants them."""
    return None if azure is None else (deployment, azure.api_version)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
