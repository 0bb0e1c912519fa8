"""Object storage by its address: the file system behind a URL, and its errors in words.

Belongs here: which options each store wants, how long it is asked again, what any of its
clients raises. Does not belong here: what is kept there (``vectors``, ``sources``).

Credentials, regions and endpoints come from the environment alone, by the names each
store's own client reads (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
``GOOGLE_APPLICATION_CREDENTIALS``, …).
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from embedding_pipeline.errors import MissingExtra

ATTEMPTS: Final = 8
"""How often one call is made while a store answers 5xx or not at all; the pauses between
double up to 20 seconds, in all about a minute."""

DISTRUSTED: Final = (
    "its certificate is not trusted; name the CA's file in redis_url (?ssl_ca_certs=…), "
    "and the server by the name in its certificate"
)

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class StorageError(OSError):
    """A store does not answer, or says no. The message says where, why and what to do."""


def is_remote(place: str) -> bool:
    """Whether ``place`` is the address of a store, and no path of this machine."""
    return "://" in place and not place.startswith("file://")


def protocol_of(url: str) -> str:
    """The part of an address before ``://``; ``file`` for a path."""
    head, mark, _ = url.partition("://")
    return head.lower() if mark else "file"


def file_system(url: str, attempts: int = ATTEMPTS) -> tuple[Any, str]:
    """The fsspec file system behind ``url``, and the path in it.

    Raises:
        MissingExtra: the store's client is not installed; names the extra.
        StorageError: there is no such protocol, or the client refuses its configuration.
    """
    from fsspec.core import url_to_fs

    protocol = protocol_of(url)
    try:
        with reaching(url):
            system, path = url_to_fs(url, **_options(protocol, attempts))
    except StorageError as exc:
        if protocol in _EXTRAS and isinstance(exc.__cause__, ImportError):
            raise MissingExtra(f"{protocol}://", _EXTRAS[protocol]) from exc
        raise
    if protocol in {"s3", "s3a"}:
        system.retries = 2  # of s3fs, around botocore's
    return system, path


def _options(protocol: str, attempts: int) -> Mapping[str, Any]:
    if protocol in {"s3", "s3a"}:
        config = {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": 10,
            "read_timeout": 60,
        }
        return {"config_kwargs": config, "use_listings_cache": False}
    return {"use_listings_cache": False} if protocol in _EXTRAS else {}


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """What any store's client raises becomes a StorageError, except that nothing is there.

    Raises FileNotFoundError and StorageError.
    """
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except PermissionError as exc:
        raise StorageError(
            f"{place} is refused; give these credentials the right to list, read, write and "
            "delete there"
        ) from exc
    except Exception as exc:
        raise StorageError(_explain(place, exc)) from exc


def _explain(place: str, exc: Exception) -> str:
    if type(exc).__name__ == "FileExpired":
        return f"{place} was replaced while it was being read; run it again"
    if type(exc).__name__ == "NoCredentialsError":
        return f"{place} needs credentials; put them into the environment"
    said = " ".join(str(exc).split())[:200]
    return (
        f"{place} cannot be reached ({type(exc).__name__}: {said}); check the address, the "
        "network and the credentials in the environment, then run it again: what is done stays"
    )


def distrusts(error: BaseException | None) -> bool:
    """Whether a connection failed since the server's certificate is not one we trust."""
    return comes_from(error, ssl.SSLCertVerificationError)


def comes_from(
    error: BaseException | None, kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    """Whether it is one of ``kinds``, or anything behind it is: clients wrap what they meet."""
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False
