"""Rate limits as the API keeps them: token buckets that refill without pause."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.bodies import Answer


def go_duration(seconds: float) -> str:
    """Seconds as Go prints a duration, to the millisecond: ``12ms``, ``2.812s``, ``6m0s``."""
    millis = max(0, round(seconds * 1000))
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


@dataclass
class Bucket:
    """Holds up to ``limit``, refilled at ``limit`` a minute."""

    limit: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.limit, self.level + (now - self.at) * self.limit / 60)
        self.at = now

    def wait_for(self, amount: float) -> float:
        """Seconds until ``amount`` is there."""
        return max(0.0, (amount - self.level) * 60 / self.limit)

    @property
    def seconds_to_full(self) -> float:
        return (self.limit - self.level) * 60 / self.limit


@dataclass
class Limits:
    """Requests and tokens per minute, per model; None is no limit.

    Attributes:
        charge_refused: whether a refused request still costs a request.
        headers: whether answers say ``x-ratelimit-*``; refusals say Retry-After in any case.
        level: how full buckets are at first.
    """

    rpm: float | None = None
    tpm: float | None = None
    charge_refused: bool = False
    headers: bool = True
    level: float = 1.0
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def admit(self, model: str, estimate: int, now: float) -> tuple[Answer | None, dict[str, str]]:
        """Debit both buckets or neither; also returns the headers of the answer."""
        asked = {"requests": 1.0, "tokens": float(estimate)}
        buckets = self._refilled(model, now)
        for what, bucket in buckets.items():
            if asked[what] > bucket.limit:
                return bodies.over_the_bucket(model, bucket.limit, asked[what]), {}
        for what, bucket in buckets.items():
            wait = bucket.wait_for(asked[what])
            if wait > 0:
                if self.charge_refused and "requests" in buckets:
                    buckets["requests"].level -= 1
                return _refuse(model, what, bucket, asked[what], wait), self._said(buckets)
        for what, bucket in buckets.items():
            bucket.level -= asked[what]
        return None, self._said(buckets)

    def _said(self, buckets: Mapping[str, Bucket]) -> dict[str, str]:
        return headers(buckets) if self.headers else {}

    def _refilled(self, model: str, now: float) -> dict[str, Bucket]:
        limits = {"requests": self.rpm, "tokens": self.tpm}
        buckets = {}
        for what, limit in limits.items():
            if limit is not None:
                fresh = Bucket(limit, limit * self.level, now)
                bucket = self._buckets.setdefault((model, what), fresh)
                bucket.refill(now)
                buckets[what] = bucket
        return buckets


def headers(buckets: Mapping[str, Bucket]) -> dict[str, str]:
    """The ``x-ratelimit-*`` headers."""
    found = {}
    for what, bucket in buckets.items():
        found[f"x-ratelimit-limit-{what}"] = f"{bucket.limit:.0f}"
        found[f"x-ratelimit-remaining-{what}"] = f"{max(0, int(bucket.level))}"
        found[f"x-ratelimit-reset-{what}"] = go_duration(bucket.seconds_to_full)
    return found


def wait_headers(seconds: float) -> dict[str, str]:
    """How long to wait, in both of the API's headers."""
    return {
        "retry-after-ms": str(max(1, round(seconds * 1000))),
        "retry-after": str(max(1, -int(-seconds // 1))),
    }


def _refuse(model: str, what: str, bucket: Bucket, asked: float, wait: float) -> Answer:
    used = bucket.limit - bucket.level
    message = bodies.rate_limited(model, what, bucket.limit, used, asked, go_duration(wait))
    answer = bodies.refusal(429, message, what, "rate_limit_exceeded")
    return replace(answer, headers=wait_headers(wait))


def limits_from(content: bytes) -> Limits:
    """Limits as the control endpoint takes them."""
    return Limits(**json.loads(content))
