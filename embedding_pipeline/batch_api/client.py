"""Files and batches of a provider: the edge to the openai SDK.

Belongs here: each call, and its errors as ours. Does not belong here: when a call is made,
or what its answer means. Importing this module imports the SDK, a second of CPU: do it on use.

What changes nothing is tried again by the SDK; what makes something is sent once: whether it
arrived is then found out by looking.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Final

import aiohttp
import httpx2
import openai
from openai.types import Batch

from embedding_pipeline.batch_api.files import ENDPOINT
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.policy import to_error, word
from embedding_pipeline.embedders.sdk import refusal_of
from embedding_pipeline.errors import ProviderError, ProviderFault, TransientProviderError

CALL_SECONDS: Final = 60.0
MOVE_SECONDS: Final = 1800.0
"""Bound on moving one file."""

PAGE: Final = 100
PENDING: Final = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
UPSTREAM_FULL: Final = "token_limit_exceeded"


@dataclass(frozen=True)
class Remote:
    """What the provider says of a batch.

    Attributes:
        id: its name there.
        status: in the provider's words.
        output_id: the file of successes, "" where there is none.
        error_id: the file of failures, "" where there is none.
        codes: why it failed.
        metadata: as it was given.
        created_s: seconds since the epoch.
    """

    id: str
    status: str
    output_id: str
    error_id: str
    codes: tuple[str, ...]
    metadata: dict[str, str]
    created_s: int

    @property
    def pending(self) -> bool:
        """It may still change."""
        return self.status in PENDING


class BatchClient:
    """One provider's account, used in one event loop.

    Args:
        provider: the provider's name, for errors.
        key: the API key.
        base_url: up to and including ``/v1``; None is OpenAI.
        clock: for servers that name a date to wait for.
    """

    def __init__(self, provider: str, key: str, base_url: str | None, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=base_url, timeout=CALL_SECONDS, max_retries=2
        )
        self._once = self._client.with_options(max_retries=0)

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def upload(self, name: str, content: IO[bytes]) -> str:
        """Upload a file, streamed; returns its id. Raises ProviderError."""
        with self._edge():
            made = await self._once.files.create(
                file=(name, content), purpose="batch", timeout=MOVE_SECONDS
            )
        return made.id

    async def files(self) -> list[tuple[str, str]]:
        """Id and name of every uploaded file. Raises ProviderError."""
        with self._edge():
            listed = self._client.files.list(purpose="batch", limit=PAGE)
            return [(file.id, file.filename) async for file in listed]

    async def delete(self, file_id: str) -> None:
        """Delete a file; one that is gone already is fine. Raises ProviderError."""
        try:
            with self._edge():
                await self._client.files.delete(file_id)
        except ProviderError as exc:
            if not is_gone(exc):
                raise

    async def create(self, file_id: str, metadata: dict[str, str]) -> Remote:
        """Ask for a batch, once. Raises ProviderError."""
        with self._edge():
            return _remote(
                await self._once.batches.create(
                    input_file_id=file_id,
                    endpoint=ENDPOINT,
                    completion_window="24h",
                    metadata=metadata,
                )
            )

    async def look(self, batch_id: str) -> Remote:
        """What became of a batch. Raises ProviderError."""
        with self._edge():
            return _remote(await self._client.batches.retrieve(batch_id))

    async def cancel(self, batch_id: str) -> Remote:
        """Ask for a batch's end; what is finished by then is delivered. Raises ProviderError."""
        with self._edge():
            return _remote(await self._client.batches.cancel(batch_id))

    async def find(self, key: str, value: str, since_s: int) -> list[Remote]:
        """Batches with this in their metadata, oldest first. Raises ProviderError.

        Args:
            key: in the metadata.
            value: under that key.
            since_s: no older ones are looked at; the provider lists the newest first.
        """
        found: list[Remote] = []
        with self._edge():
            async for batch in self._client.batches.list(limit=PAGE):
                if batch.created_at < since_s:
                    break
                if (batch.metadata or {}).get(key) == value:
                    found.append(_remote(batch))
        return sorted(found, key=lambda remote: (remote.created_s, remote.id))

    async def lines(self, file_id: str) -> AsyncIterator[bytes]:
        """The lines of a file, as they come in. Raises ProviderError.

        A download that breaks off raises ``TransientProviderError`` after its whole lines.
        """
        rest = b""
        with self._edge():
            streaming = self._client.files.with_streaming_response
            async with streaming.content(file_id, timeout=MOVE_SECONDS) as response:
                async for piece in response.iter_bytes():
                    *whole, rest = (rest + piece).split(b"\n")
                    for line in whole:
                        yield line
        if rest:
            raise self._broken("the file breaks off within a line")

    @contextmanager
    def _edge(self) -> Iterator[None]:
        """Where the SDK's errors become ours."""
        try:
            yield
            return
        except openai.APIStatusError as exc:
            error = to_error(refusal_of(exc.body, exc.response, self._clock.now()), self._provider)
        except (openai.APIError, httpx2.HTTPError, httpx2.StreamError) as exc:
            error = self._broken(type(exc).__name__)
        except (aiohttp.ClientError, OSError) as exc:
            error = self._broken(type(exc).__name__)
        # The SDK's exceptions carry the server's words: they are not to be printed along.
        raise error from None

    def _broken(self, what: str) -> ProviderError:
        return TransientProviderError(
            f"{self._provider} broke the connection or fell silent ({what}); "
            "it is tried again later",
            ProviderFault(self._provider),
        )


def is_gone(error: ProviderError) -> bool:
    """Whether the provider says that there is no such thing (any more)."""
    return error.fault.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


def was_refused(error: ProviderError) -> bool:
    """Whether the provider certainly did not do what it was asked."""
    status = error.fault.status
    refused = status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and status != HTTPStatus.REQUEST_TIMEOUT


def _remote(batch: Batch) -> Remote:
    errors = (batch.errors.data or []) if batch.errors else []
    return Remote(
        batch.id,
        word(batch.status) or "",
        batch.output_file_id or "",
        batch.error_file_id or "",
        tuple(word(error.code) or "unknown" for error in errors),
        dict(batch.metadata or {}),
        batch.created_at,
    )
