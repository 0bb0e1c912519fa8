"""What an error of a provider means, decided by status, type and code.

Belongs here: pure decisions about foreign answers: which of our errors it is, how long the
server asks to wait, which input it names. Does not belong here: waiting, retrying or
splitting, nor any SDK's exception classes (``sdk`` maps those).

Messages are not evidence: wordings change with every release. Two facts exist nowhere
else, though, and are read from it, here and only here: that a 429 is about a request that
no waiting lets through, and which input is over the cap.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

from embedding_pipeline.errors import (
    InputRefused,
    KeyExhausted,
    ProviderError,
    ProviderFault,
    ProviderRefused,
    RateLimited,
    RateRampTooSteep,
    RequestTooLarge,
    TransientProviderError,
)

MOST_RETRY_AFTER: Final = 3600.0
"""A server that asks to wait longer than this many seconds is taken to mean this."""

RATE_PREFIX: Final = "x-ratelimit-"

QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
)
OVERLOAD_CODES: Final = frozenset({"slow_down", "server_is_overloaded"})
TOO_LARGE_CODES: Final = frozenset({"max_tokens_per_request"})
TRANSIENT_STATUSES: Final = frozenset({408, 409, 425})
INPUT_STATUSES: Final = frozenset({400, 422})
NOT_BILLED_STATUSES: Final = frozenset({503})
OUR_PARAMETERS: Final = frozenset({"model", "dimensions", "encoding_format", "user"})
"""Parameters that come from the settings, not from a text."""

_REQUEST_TOO_LARGE: Final = re.compile(r"request too large\b", re.IGNORECASE)
_NAMED_INPUT: Final = re.compile(r"['\"`]?input\[(\d{1,4})\]")


@dataclass(frozen=True)
class Refusal:
    """An answer with an error status, as data.

    Attributes:
        status: the HTTP status.
        type, code, param: fields of the body's ``error`` object, None where absent.
        message: what the server says. Never shown: it may repeat a text or a key.
        retry_after: seconds it asks to wait, bounded, or None.
        request_id: the provider's id of the request, if any.
        rate_headers: what it said about rate limits.
    """

    status: int
    type: str | None = None
    code: str | None = None
    param: str | None = None
    message: str = ""
    retry_after: float | None = None
    request_id: str | None = None
    rate_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Which error it is, what follows for a person, and the input it names."""

    error: type[ProviderError]
    advice: str
    input_index: int | None = None


_WAIT: Final = Verdict(RateLimited, "the rate limit is reached; it passes by waiting")
_RAMP: Final = Verdict(
    RateRampTooSteep, "it is overloaded or called too fast; it passes by waiting"
)
_SPLIT: Final = Verdict(RequestTooLarge, "the request is too large and has to be split")
_AGAIN: Final = Verdict(TransientProviderError, "it may succeed when tried again")
_MONEY: Final = Verdict(
    KeyExhausted, "its quota or spend limit is reached; raise it, or use another key"
)
_SETTING: Final = Verdict(
    ProviderRefused, "check the key, its permissions, the model and the address in the settings"
)


def classify(refusal: Refusal) -> Verdict:
    """The meaning of an answer, most specific evidence first."""
    status = refusal.status
    if refusal.code in QUOTA_CODES or refusal.type in QUOTA_CODES or status == 402:
        return _MONEY
    if TOO_LARGE_CODES & {refusal.code, refusal.type} or status == 413:
        return _SPLIT
    if status == 429:
        return _classify_429(refusal)
    if status >= 500:
        overloaded = refusal.code in OVERLOAD_CODES or refusal.type == "service_unavailable_error"
        return _RAMP if overloaded else _AGAIN
    if status in INPUT_STATUSES:
        return _classify_input(refusal)
    return _AGAIN if status in TRANSIENT_STATUSES else _SETTING


def _classify_429(refusal: Refusal) -> Verdict:
    if refusal.code in OVERLOAD_CODES:
        return _RAMP
    return _SPLIT if _REQUEST_TOO_LARGE.match(refusal.message) else _WAIT


def _classify_input(refusal: Refusal) -> Verdict:
    if refusal.param in OUR_PARAMETERS:
        return _SETTING
    named = _NAMED_INPUT.search(refusal.message)
    return Verdict(
        InputRefused,
        "it does not take one of the inputs",
        int(named[1]) if named else None,
    )


def to_error(refusal: Refusal, provider: str) -> ProviderError:
    """The error to raise. It repeats nothing the server said but type, code and id."""
    verdict = classify(refusal)
    status = refusal.status
    fault = ProviderFault(
        provider,
        status=status,
        type=refusal.type,
        code=refusal.code,
        retry_after=refusal.retry_after,
        input_index=verdict.input_index,
        request_id=refusal.request_id,
        maybe_billed=status >= 500 and status not in NOT_BILLED_STATUSES,
        rate_headers=refusal.rate_headers,
    )
    names = [f"status {status}", refusal.code or refusal.type, refusal.request_id]
    said = ", ".join(name for name in names if name)
    return verdict.error(f"{provider} answered with {said}: {verdict.advice}", fault)


def word(value: object) -> str | None:
    """A field of an error body, if it is a short plain word and so cannot carry content."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,80}", value):
        return value
    return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to wait, between 0 and ``MOST_RETRY_AFTER``; None if it does not.

    Args:
        headers: of the answer, looked up by lower-case name.
        now: seconds since the epoch, for servers that name a date.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        given = headers.get("retry-after")
        seconds = _number(given)
        if seconds is None:
            seconds = _until(given, now)
    return None if seconds is None else min(max(seconds, 0.0), MOST_RETRY_AFTER)


def rate_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The few headers about rate limits, with lower-case names."""
    return {
        name.lower(): value[:64]
        for name, value in headers.items()
        if name.lower().startswith(RATE_PREFIX)
    }


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _until(date: str | None, now: float) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp() - now
    except (ValueError, OverflowError, OSError):
        return None
