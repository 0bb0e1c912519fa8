"""What can go wrong, and when it does.

A fault strikes every request unless it is narrowed: to the ``next`` N requests, to a
``rate``, to requests that hold a text with a ``marker``; the narrowings combine. Rates
are drawn from the seed, the request's body and how often that body was seen, so that a
schedule does not depend on the order in which concurrent requests arrive.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.bodies import Answer, html, refusal
from embedding_pipeline_tests.fake_openai.buckets import wait_headers
from embedding_pipeline_tests.fake_openai.rules import Request

UNBILLED_WIRE = ("reset", "hang")
"""Nothing was embedded: the connection breaks, or nothing comes."""

BILLED_WIRE = ("billed_reset", "billed_hang", "drip", "short_length", "close_in_body")
"""Embedded and billed, but the answer does not arrive whole."""

QUOTA = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
)


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        kind: a wire fault, a key of ``REFUSALS`` or one of ``replies.REPLIES``.
        next: strike that many requests, then no more; 0 is no such bound.
        rate: share of the requests to strike.
        marker: strike only requests with a text that contains it.
        retry_after: seconds to wait, in the headers of a refusal; None sends no header.
        seconds: how long a hang or a dripping body lasts.
    """

    kind: str
    next: int = 0
    rate: float = 1.0
    marker: str = ""
    retry_after: float | None = None
    seconds: float = 600.0


def _input_index(fault: Fault, request: Request) -> int:
    marked = (i for i, text in enumerate(request.texts) if fault.marker in text)
    return next(marked, 0)


def _limited(what: str) -> Callable[[Fault, Request], Answer]:
    def answer(fault: Fault, request: Request) -> Answer:
        message = bodies.rate_limited(request.model.name, what, 1000, 990, 100, "2.812s")
        return refusal(429, message, what, "rate_limit_exceeded")

    return answer


def _quota(code: str) -> Answer:
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, read the docs: "
        "https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return refusal(429, message, "insufficient_quota", code)


def _echo(fault: Fault, request: Request) -> Answer:
    """A compatible server that repeats what it was sent."""
    detail = [{"loc": ["body", "input", 0], "msg": "value is bad", "input": request.texts[0]}]
    return Answer(422, json.dumps({"detail": detail}).encode())


AZURE_LIMIT = (
    "Requests to the Embeddings_Create Operation under Azure OpenAI API version have exceeded "
    "call rate limit of your current tier. Please retry after 7 seconds."
)
SLOW_DOWN = "Your traffic is growing too fast. Please slow down."
OVERLOADED = "The model is overloaded. Please try again later."
SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"

REFUSALS: dict[str, Callable[[Fault, Request], Answer]] = {
    "400_input": lambda f, r: bodies.bad_input(),
    "400_input_index": lambda f, r: bodies.input_too_long(_input_index(f, r)),
    "400_context_length": lambda f, r: bodies.context_length(),
    "400_array_length": lambda f, r: bodies.too_many_inputs(2049),
    "400_request_tokens": lambda f, r: bodies.request_too_long(416_735),
    "400_dimensions": lambda f, r: bodies.no_dimensions(),
    "401_key": lambda f, r: bodies.wrong_key("sk-wrong-key-1234"),
    "401_address": lambda f, r: refusal(
        401, "Your IP is not authorized.", code="ip_not_authorized"
    ),
    "403_region": lambda f, r: refusal(
        403,
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory",
    ),
    "404_model": lambda f, r: bodies.unknown_model(r.model.name),
    "408": lambda f, r: refusal(408, "Request timed out.", None),
    "409": lambda f, r: refusal(409, "Conflict.", None),
    "413": lambda f, r: html(413, "Request Entity Too Large"),
    "422_echo": _echo,
    "429_requests": _limited("requests"),
    "429_tokens": _limited("tokens"),
    "429_too_large": lambda f, r: bodies.over_the_bucket(r.model.name, 1000, r.estimate),
    "429_slow_down": lambda f, r: refusal(429, SLOW_DOWN, "rate_limit_error", "slow_down"),
    "429_text": lambda f, r: Answer(429, b"Too Many Requests", "text/plain"),
    "429_azure": lambda f, r: refusal(429, AZURE_LIMIT, None, "429"),
    "500": lambda f, r: refusal(500, SERVER_ERROR, "server_error"),
    "500_empty": lambda f, r: Answer(500, b"", "text/plain"),
    "502_html": lambda f, r: html(502, "Bad Gateway"),
    "503_overloaded": lambda f, r: refusal(
        503, OVERLOADED, "service_unavailable_error", "server_is_overloaded"
    ),
    "503_server_error": lambda f, r: refusal(503, OVERLOADED, "server_error"),
    "503_slow_down": lambda f, r: refusal(503, SLOW_DOWN, "server_error", "slow_down"),
    "504_html": lambda f, r: html(504, "Gateway Timeout"),
    "520_html": lambda f, r: html(520, "Web server is returning an unknown error"),
} | {f"429_{code}": (lambda f, r, code=code: _quota(code)) for code in QUOTA}
"""Refusals: nothing is embedded and nothing billed."""


DOUBTFUL = (500, 502, 504, 520)
"""Statuses after which nobody can know whether the request was embedded, and billed."""


def refuse(fault: Fault, request: Request) -> Answer:
    """The refusal a fault stands for, with its headers."""
    answer = REFUSALS[fault.kind](fault, request)
    if fault.retry_after is None:
        return answer
    return replace(answer, headers=wait_headers(fault.retry_after))


class Schedule:
    """Decides which fault, if any, strikes a request."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self._faults = list(faults)
        self._left = [fault.next or None for fault in self._faults]
        self._seed = seed
        self._seen: Counter[bytes] = Counter()

    def strike(self, request: Request, content: bytes) -> Fault | None:
        """The first fault that applies, used up by one."""
        digest = hashlib.sha256(content).digest()
        self._seen[digest] += 1
        for number, fault in enumerate(self._faults):
            if self._left[number] == 0 or not _holds(fault.marker, request):
                continue
            if self._draw(number, digest) >= fault.rate:
                continue
            left = self._left[number]
            self._left[number] = None if left is None else left - 1
            return fault
        return None

    def _draw(self, number: int, digest: bytes) -> float:
        """A number in [0, 1) for this fault, this body, this time."""
        ticket = f"{self._seed}:{number}:{self._seen[digest]}:".encode() + digest
        return int.from_bytes(hashlib.sha256(ticket).digest()[:6], "big") / 2**48


def _holds(marker: str, request: Request) -> bool:
    return not marker or any(marker in text for text in request.texts)


def schedule_to_json(faults: Iterable[Fault], seed: int) -> bytes:
    """A schedule as the control endpoint takes it."""
    return json.dumps({"seed": seed, "faults": [asdict(fault) for fault in faults]}).encode()


def schedule_from_json(content: bytes) -> Schedule:
    """The inverse. Raises ValueError or TypeError on what it does not know."""
    from embedding_pipeline_tests.fake_openai.replies import REPLIES

    body = json.loads(content)
    faults = [Fault(**fault) for fault in body["faults"]]
    for fault in faults:
        if fault.kind not in {*REFUSALS, *REPLIES, *UNBILLED_WIRE, *BILLED_WIRE}:
            raise ValueError(f"no fault is called {fault.kind}")
    return Schedule(faults, body.get("seed", 0))
