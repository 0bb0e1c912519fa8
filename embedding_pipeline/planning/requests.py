"""Which texts share a request.

Belongs here: the arithmetic of caps, as pure functions of counts. Does not belong
here: counting tokens, sending anything, or judging a text on its own (``inputs``).
"""

from dataclasses import dataclass
from fractions import Fraction

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
    two full ones and a tiny tail that somebody waits for. A text's size is the share of a
    full request that it takes, in tokens or as one of ``max_inputs``, whichever is more.
    With ``final=False`` only full requests are planned and the rest is left for the next
    call, so that requests fill across record batches and partitions.

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
    # In integers: a full request has the size aim × max_inputs, under either bound.
    full = caps.aim * caps.max_inputs
    size = np.minimum(np.maximum(weight * caps.max_inputs, caps.aim), full)
    total = int(size.sum())
    wanted = -(-total // full)
    if wanted == 0 or not (final or total >= full):
        return ()
    share = Fraction(total, wanted) if final else Fraction(full)
    plans = _cut(count, estimate, size, share, caps)
    if final or int(size[plans[-1].start :].sum()) >= full:
        return plans
    return plans[:-1]


def _refuse_oversize(weight: npt.NDArray[np.int64], caps: RequestCaps) -> None:
    limit = min(caps.max_input_tokens, caps.ceiling)
    over = np.flatnonzero(weight > limit)
    if len(over):
        raise ValueError(f"text {int(over[0])} has {int(weight[over[0]])} tokens, over {limit}")


def _cut(
    count: npt.NDArray[np.int64],
    estimate: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    share: Fraction,
    caps: RequestCaps,
) -> tuple[RequestPlan, ...]:
    """Cut where the running size is nearest to a multiple of ``share``, or a cap says so."""
    tokens, estimates = _running(count), _running(estimate)
    middles = 2 * np.cumsum(size) - size  # twice the running size at the middle of each text
    plans: list[RequestPlan] = []
    start = 0
    while start < len(count):
        bound = min(int(2 * share * (len(plans) + 1)), int(middles[-1]))
        stop = min(
            start + caps.max_inputs,
            int(np.searchsorted(tokens, tokens[start] + caps.ceiling, "right")) - 1,
            int(np.searchsorted(estimates, estimates[start] + caps.ceiling, "right")) - 1,
            int(np.searchsorted(middles, bound, "right")),
            len(count),
        )
        stop = max(stop, start + 1)
        held, rough = tokens[stop] - tokens[start], estimates[stop] - estimates[start]
        plans.append(RequestPlan(start, stop, int(held), int(rough)))
        start = stop
    return tuple(plans)


def _running(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sums of the first 0, 1, 2, … numbers."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(numbers)])
