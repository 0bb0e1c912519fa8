"""Which errors are an outage: work that is left for later, rather than a run that fails.

Belongs here: the decision. Pure. Does not belong here: leaving anything (``bulk``), or
finding out that the outage is over (``assembly``).

An outage is over some day without anybody changing a setting. A wrong key or an unknown
model is not: such a run fails, and says what to change. Nor is a reply that fails
validation: it is billed, so nobody should wait for more of them.
"""

from typing import Final

from embedding_pipeline.errors import (
    CircuitOpen,
    InvalidReply,
    KeyExhausted,
    RateLimited,
    TransientProviderError,
)
from embedding_pipeline.ledger.deferred import OUTAGE
from embedding_pipeline.service.work import Deferral

OUTAGES: Final = (TransientProviderError, CircuitOpen, RateLimited, KeyExhausted)
"""What is left of an error once everything was tried for as long as the settings allow."""


def outage_of(error: BaseException) -> Deferral | None:
    """Why texts are left for later after ``error``; None where it is no outage."""
    if not isinstance(error, OUTAGES) or isinstance(error, InvalidReply):
        return None
    return Deferral(OUTAGE, f"the provider does not deliver: {error}")


def no_outage(error: BaseException) -> Deferral | None:  # noqa: ARG001
    """Where nothing is to be left for later, every error ends the work."""
    return None
