"""Which texts share a request.

Belongs here: the arithmetic of caps, as pure functions of counts. Does not belong
here: counting tokens, sending anything, or judging a text on its own (``inputs``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_pipeline.planning.config import (
    API_MAX_INPUT_TOKENS,
    API_MAX_INPUTS,
    API_MAX_REQUEST_TOKENS,
)


@dataclass(frozen=True)
class RequestCaps:
    """What one request may hold. Tokens are capped under both ways of counting.

    Attributes:
        max_inputs: texts in one request.
        max_input_tokens: tokens in one text.
        max_request_tokens: tokens in one request.
        target_tokens: the size aimed at; never above ``max_request_tokens``.
        bucket: capacity of the token bucket a request must fit into, if known.
    """

    max_inputs: int = API_MAX_INPUTS
    max_input_tokens: int = API_MAX_INPUT_TOKENS
    max_request_tokens: int = API_MAX_REQUEST_TOKENS
    target_tokens: int = 50_000
    bucket: int | None = None

    @property
    def ceiling(self) -> int:
        """Most tokens in one request, the bucket considered."""
        bucket = self.max_request_tokens if self.bucket is None else self.bucket
        return min(self.max_request_tokens, bucket)

    @property
    def aim(self) -> int:
        """The size a full request has."""
        return min(self.target_tokens, self.ceiling)


@dataclass(frozen=True)
class RequestPlan:
    """One request: the texts ``start`` to ``stop`` (exclusive) of what was planned.

    Attributes:
        start: index of the first text.
        stop: index after the last text.
        tokens: their cl100k tokens.
        estimate: their UTF-8 bytes / 4, each rounded up.
    """

    start: int
    stop: int
    tokens: int
    estimate: int

    def __len__(self) -> int:
        return self.stop - self.start


def plan_requests(
    tokens: npt.ArrayLike,
    estimates: npt.ArrayLike,
    caps: RequestCaps,
    *,
    final: bool = True,
) -> tuple[RequestPlan, ...]:
    """Group texts, in order, into requests that break no cap under either count.

    Sizes are evened out: 2.1 targets' worth of text becomes three requests of 0.7, not
    two full ones and a tiny tail that somebody waits for. With ``final=False`` only full
    requests are planned and the rest is left for the next call, so that requests fill
    across record batches and partitions.

    Args:
        tokens: cl100k tokens of each text, shape ``(n,)``.
        estimates: the API's own estimate of each text, shape ``(n,)``.
        caps: what a request may hold.
        final: nothing follows; plan every text.

    Raises:
        ValueError: a text alone is over a cap; ``inputs.judge`` comes first.
    """
    count = np.asarray(tokens, dtype=np.int64)
    estimate = np.asarray(estimates, dtype=np.int64)
    weight = np.maximum(count, estimate)
    _refuse_oversize(weight, caps)
    total = int(weight.sum())
    wanted = _wanted(total, len(weight), caps, final)
    if wanted == 0:
        return ()
    share = total / wanted if final else float(caps.aim)
    plans = _cut(count, estimate, weight, share, caps)
    return plans if final else _full_ones(plans, caps)


def _refuse_oversize(weight: npt.NDArray[np.int64], caps: RequestCaps) -> None:
    limit = min(caps.max_input_tokens, caps.ceiling)
    over = np.flatnonzero(weight > limit)
    if len(over):
        raise ValueError(f"text {int(over[0])} has {int(weight[over[0]])} tokens, over {limit}")


def _wanted(total: int, texts: int, caps: RequestCaps, final: bool) -> int:
    if not final:
        return max(total // caps.aim, texts // caps.max_inputs)
    return max(-(-total // caps.aim), -(-texts // caps.max_inputs))


def _cut(
    count: npt.NDArray[np.int64],
    estimate: npt.NDArray[np.int64],
    weight: npt.NDArray[np.int64],
    share: float,
    caps: RequestCaps,
) -> tuple[RequestPlan, ...]:
    """Cut where the running weight is nearest to a multiple of ``share``, or a cap says so."""
    plans: list[RequestPlan] = []
    start = held_tokens = held_estimate = done = 0
    for index, (own, rough, heavy) in enumerate(
        zip(count.tolist(), estimate.tolist(), weight.tolist(), strict=True)
    ):
        ends_here = done + heavy / 2 > share * (len(plans) + 1)
        breaks_cap = (
            index - start >= caps.max_inputs
            or held_tokens + own > caps.ceiling
            or held_estimate + rough > caps.ceiling
        )
        if index > start and (ends_here or breaks_cap):
            plans.append(RequestPlan(start, index, held_tokens, held_estimate))
            start, held_tokens, held_estimate = index, 0, 0
        held_tokens, held_estimate, done = held_tokens + own, held_estimate + rough, done + heavy
    if start < len(count):
        plans.append(RequestPlan(start, len(count), held_tokens, held_estimate))
    return tuple(plans)


def _full_ones(plans: tuple[RequestPlan, ...], caps: RequestCaps) -> tuple[RequestPlan, ...]:
    """All but a last request that has room left."""
    last = plans[-1]
    full = max(last.tokens, last.estimate) >= caps.aim or len(last) >= caps.max_inputs
    return plans if full else plans[:-1]
