"""Batch or one request at a time: the decision, as pure functions.

Belongs here: what follows from tokens, prices and the time there is. Does not belong here:
counting any of them, or acting.
"""

from dataclasses import dataclass
from typing import Final, Literal

from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.batch_api.records import Submission

WINDOW_HOURS: Final = 24
"""The only completion window there is; a batch that takes longer expires."""

HOUR_MS: Final = 3_600_000

MARGIN: Final = 0.65
"""Of the enqueued-token limit that is used: the provider counts by an estimate of its own,
up to a third above ours (openai-python issue 2084)."""

CANCELLED: Final = "cancelled"
EXPIRED: Final = "expired"

Way = Literal["sync", "batch"]


@dataclass(frozen=True)
class Verdict:
    """How some work is sent.

    Attributes:
        way: ``batch``, or ``sync`` for one request at a time.
        reason: why, as the end of a sentence.
        saved_nano: nano-USD a batch costs less, where there is one.
    """

    way: Way
    reason: str
    saved_nano: int = 0


def decide(
    config: BatchApiConfig, tokens: int, price: int | None, batch_price: int | None
) -> Verdict:
    """How work of so many tokens is sent.

    Args:
        config: the settings.
        tokens: what would be billed.
        price: nano-USD a token sent one request at a time; None where unknown.
        batch_price: nano-USD a token in a batch; None where the model has no Batch API.
    """
    if config.mode == "off":
        return Verdict("sync", "batch_api is off")
    if batch_price is None:
        return Verdict("sync", "the model has no Batch API, or its price there is not known")
    saved = 0 if price is None else tokens * (price - batch_price)
    if config.mode == "on":
        return Verdict("batch", "batch_api is on", saved)
    return _weigh(config, tokens, price, saved)


def _weigh(config: BatchApiConfig, tokens: int, price: int | None, saved: int) -> Verdict:
    if tokens < config.min_tokens:
        reason = f"{tokens} tokens are less than batch_api.min_tokens ({config.min_tokens})"
        return Verdict("sync", reason, saved)
    if config.deadline_hours < WINDOW_HOURS:
        reason = (
            f"a batch may take {WINDOW_HOURS} hours, "
            f"and batch_api.deadline_hours is {config.deadline_hours:g}"
        )
        return Verdict("sync", reason, saved)
    if price is not None and saved <= 0:
        return Verdict("sync", "a batch is not cheaper", saved)
    return Verdict("batch", f"{tokens} tokens are worth a batch", saved)


def enqueueable(config: BatchApiConfig) -> int:
    """Tokens by our count that may be in unfinished batches at a time, and so in one file."""
    return int(config.enqueued_tokens * MARGIN)


def overdue(config: BatchApiConfig, opened_ms: int, now_ms: int) -> bool:
    """Whether what is not back yet goes one request at a time from now on."""
    return now_ms - opened_ms >= config.deadline_hours * HOUR_MS


def turn_hours(config: BatchApiConfig) -> float:
    """How long after its batch what a day still lacks goes one request at a time."""
    return max(config.deadline_hours, WINDOW_HOURS)


def had_its_turn(config: BatchApiConfig, ended: Submission, now_ms: int) -> bool:
    """Whether what a batch did not bring goes one request at a time from now on.

    So a text that no batch delivers is sent by itself in the end, and found out about. Work
    that was never asked for may go into another batch; so may what expired, if that one is
    back before the deadline.

    Args:
        config: the settings.
        ended: a submission with nothing out any more.
        now_ms: the instant.
    """
    if now_ms - ended.changed_ms >= turn_hours(config) * HOUR_MS:
        return False
    if overdue(config, ended.opened_ms, now_ms) or ended.status == CANCELLED:
        return True
    back_ms = now_ms + WINDOW_HOURS * HOUR_MS
    again = ended.status == EXPIRED and not overdue(config, ended.opened_ms, back_ms)
    return ended.attempt > 0 and not again
