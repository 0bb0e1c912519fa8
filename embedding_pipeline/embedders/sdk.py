"""The edge to the openai SDK: its client goes in, our errors come out.

Belongs here: everything that knows the SDK, httpx2 and aiohttp. Does not belong here:
what an error means (``policy``) or what a reply holds (``replies``). Importing this module
imports the SDK, a second of CPU: do it on use.

The SDK keeps authentication, headers, proxies and the error classes. Left out, because of
what it costs or hides: its models (every float becomes a Python object), its retries (they
bill twice in silence), its redirects (a key would follow them), and, but for the first call,
its way from a call to a request (1 ms of copies each): all are alike but for their body.
"""

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import httpx2
import openai

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.policy import (
    Refusal,
    rate_headers,
    retry_after,
    to_error,
    word,
)
from embedding_pipeline.errors import (
    InvalidReply,
    ProviderError,
    ProviderFault,
    ProviderRefused,
    TransientProviderError,
)

CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 15.0
"""Connections unused for longer are closed, before servers close them under a request."""

PIECE_BYTES: Final = 1 << 20
"""Most bytes that are handed on at a time of a body that does not say how long it is."""

_ALL: Final = -1
"""To aiohttp: everything, as one piece."""

PATH: Final = "/embeddings"
HEADERS: Final = {"accept-encoding": "identity"}
"""Vectors hardly compress; unpacking costs more than it saves."""


def _is_plain(base_url: str) -> bool:
    return base_url.lower().startswith("http:")


class _BodyTooLarge(httpx2.StreamError):
    """More bytes came than any right answer has."""


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends with an error once it is over its bound."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > self._most:
                raise _BodyTooLarge("the body is larger than any right answer")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _TrustOnUse(ssl.SSLContext):
    """Reads whom to trust (20 ms) when a connection is encrypted, not before.

    Where the address begins with ``http:`` none is, unless by way of a proxy.
    """

    _read = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        if not self._read:
            self._read = True
            self.load_default_certs()
        return super().wrap_bio(*args, **kwargs)


class _Alike:
    """Requests as the SDK made the first one: address, key, headers and timeouts."""

    def __init__(self, first: httpx2.Request) -> None:
        self._url = first.url
        self._extensions = dict(first.extensions)
        self._headers = first.headers.copy()
        del self._headers["content-length"]

    def request(self, body: bytes) -> httpx2.Request:
        return httpx2.Request(
            "POST", self._url, headers=self._headers, content=body, extensions=self._extensions
        )


class Endpoint:
    """The embeddings endpoint of one provider, used in one event loop.

    Args:
        provider: name of the provider, for errors.
        key: the API key.
        base_url: up to and including ``/v1``.
        max_connections: size of the connection pool.
        timeout_seconds: deadline of one call, from connecting to the last byte.
        most_bytes: bound on the body of an answer (as it travels, if it is compressed).
        clock: reads the time, for servers that name a date to wait for.
        azure: deployment and API version, for Azure.
    """

    def __init__(
        self,
        *,
        provider: str,
        key: str,
        base_url: str,
        max_connections: int,
        timeout_seconds: float,
        most_bytes: int,
        clock: Clock,
        azure: tuple[str, str] | None = None,
    ) -> None:
        self._provider = provider
        self._place = base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
        self._seconds = timeout_seconds
        self._most_bytes = most_bytes
        self._clock = clock
        timeout = httpx2.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        self._alike: _Alike | None = None
        self._pool = openai.DefaultAioHttpClient(
            limits=httpx2.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=IDLE_SECONDS,
            ),
            timeout=timeout,
            follow_redirects=False,
            verify=_TrustOnUse(ssl.PROTOCOL_TLS_CLIENT) if _is_plain(base_url) else True,
            event_hooks={"request": [self._remember], "response": [self._bound]},
        )
        common: dict[str, Any] = {
            "api_key": key,
            "max_retries": 0,
            "timeout": timeout,
            "http_client": self._pool,
            "default_headers": HEADERS,
        }
        self._client = (
            openai.AsyncOpenAI(base_url=base_url, **common)
            if azure is None
            else openai.AsyncAzureOpenAI(
                azure_endpoint=base_url, azure_deployment=azure[0], api_version=azure[1], **common
            )
        )

    async def post(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Send a JSON body once; returns body and rate limit headers of a success.

        Raises:
            ProviderError: of the class that fits what happened.
        """
        error: ProviderError
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._send(body)
            if response.is_success:
                return response.content, rate_headers(response.headers)
            error = self._refused(_error_object(response), response)
        except TimeoutError:
            error = self._late()
        except (openai.APIError, httpx2.HTTPError, httpx2.StreamError) as exc:
            error = self._map(exc)
        except (aiohttp.ClientError, OSError) as exc:
            error = self._broken(exc)
        # Out of the handlers: the SDK's exceptions carry the server's words, which may
        # repeat a text or part of a key, and would be printed with a traceback.
        raise error

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def _send(self, body: bytes) -> httpx2.Response:
        if self._alike is not None:
            return await self._pool.send(self._alike.request(body))
        return await self._client.post(
            PATH,
            cast_to=httpx2.Response,
            content=body,
            options={"headers": {"content-type": "application/json"}},
        )

    async def _remember(self, request: httpx2.Request) -> None:
        if self._alike is None:
            self._alike = _Alike(request)

    async def _bound(self, response: httpx2.Response) -> None:
        _read_in_large_pieces(response, self._most_bytes)
        response.stream = _Bounded(response.stream, self._most_bytes)

    def _map(self, exc: Exception) -> ProviderError:
        if isinstance(exc, openai.APIStatusError):
            return self._refused(exc.body, exc.response)
        if any(isinstance(link, _BodyTooLarge) for link in _chain(exc)):
            return self._too_much()
        if any(isinstance(link, httpx2.UnsupportedProtocol) for link in _chain(exc)):
            return ProviderRefused(
                f"{self._provider}: the address is not one of an HTTP server; correct base_url",
                ProviderFault(self._provider),
            )
        return self._broken(exc)

    def _refused(self, body: object, response: httpx2.Response) -> ProviderError:
        return to_error(refusal_of(body, response, self._clock.now()), self._provider)

    def _late(self) -> ProviderError:
        return TransientProviderError(
            f"{self._provider} did not answer completely within {self._seconds:g} s; "
            "it may succeed when tried again",
            ProviderFault(self._provider, maybe_billed=True),
        )

    def _too_much(self) -> ProviderError:
        return InvalidReply(
            f"{self._provider} sent a reply that cannot be trusted: it is larger than "
            f"{self._most_bytes} bytes; it may succeed when tried again",
            ProviderFault(self._provider, maybe_billed=True),
        )

    def _broken(self, exc: BaseException) -> ProviderError:
        unreached = any(isinstance(link, _NEVER_CONNECTED) for link in _chain(exc))
        what = "could not be reached" if unreached else "broke the connection or fell silent"
        cause = type(_chain(exc)[-1]).__name__
        return TransientProviderError(
            f"{self._provider} at {self._place} {what} ({cause}); it may succeed when tried again",
            ProviderFault(self._provider, maybe_billed=not unreached),
        )


def _read_in_large_pieces(response: httpx2.Response, most: int) -> None:
    """The transport cuts a body into pieces of 16 KB; each costs a walk through eight layers.

    A body that says how long it is, and is within the bound, is read as one piece: what comes
    in meanwhile wakes the innermost layer alone.

    Both attributes are the transport's own: where a later version has them no more, bodies
    are read as it likes, a quarter of the loop's CPU slower.
    """
    stream = getattr(response.stream, "_stream", None)
    if stream is not None and hasattr(stream, "CHUNK_SIZE"):
        stream.CHUNK_SIZE = _ALL if _announced(response) <= most else PIECE_BYTES


def _announced(response: httpx2.Response) -> float:
    """Bytes of the body, as its headers say; infinite where they do not, or it is compressed."""
    length = response.headers.get("content-length", "")
    plain = length.isdecimal() and "content-encoding" not in response.headers
    return int(length) if plain else math.inf


_NEVER_CONNECTED: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx2.ConnectError,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)


def _chain(exc: BaseException) -> list[BaseException]:
    """The exception and its causes, the innermost last."""
    links = [exc]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def refusal_of(error: object, response: httpx2.Response, now: float) -> Refusal:
    """What an answer with an error status says, as data; ``error`` is from its body."""
    body = error if isinstance(error, dict) else {}
    message = body.get("message")
    return Refusal(
        status=response.status_code,
        type=word(body.get("type")),
        code=word(body.get("code")),
        param=word(body.get("param")),
        message=message if isinstance(message, str) else "",
        retry_after=retry_after(response.headers, now),
        request_id=word(response.headers.get("x-request-id")),
        rate_headers=rate_headers(response.headers),
    )


def _error_object(response: httpx2.Response) -> object:
    """What a body says of an error, as the SDK finds it; None where it is not JSON."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return body.get("error", body) if isinstance(body, dict) else None
