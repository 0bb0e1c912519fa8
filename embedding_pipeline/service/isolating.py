"""Finding the text that is to blame for a refused request.

Belongs here: which piece of a refused request is sent next, as pure functions. Does not
belong here: sending it (``fetching``), or what the refusal means (``embedders.policy``).

A provider that names the input is believed: that one goes, the rest is sent again. Else the
request is halved. Of a request that was refused for an input, a left half that passes
proves that the right half holds it: that one is halved without being sent whole. One bad
text of n so costs at most 2·log2(n) further requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from embedding_pipeline.errors import InputRefused, InvalidReply, ProviderError, RequestTooLarge
from embedding_pipeline.ledger.quarantine import BAD_REPLY, REFUSED
from embedding_pipeline.planning.inputs import TOO_LONG
from embedding_pipeline.service.work import Item, Refusal

Splittable: TypeAlias = InputRefused | RequestTooLarge | InvalidReply


@dataclass(frozen=True)
class Piece:
    """A part of a request.

    Attributes:
        items: its texts.
        guilty: one of them is known to be refused, so it is not sent whole.
        clears: should it pass, the piece after it is guilty.
    """

    items: Sequence[Item]
    guilty: bool = False
    clears: bool = False


@dataclass(frozen=True)
class Blame:
    """What follows from a refusal.

    Attributes:
        culprit: the text to quarantine, or None.
        pieces: what is to be sent instead, in this order.
    """

    culprit: Item | None
    pieces: tuple[Piece, ...]


def blame(piece: Piece, exc: Splittable) -> Blame:
    """What to do about a refused piece."""
    items = piece.items
    named = exc.fault.input_index if isinstance(exc, InputRefused) else None
    if named is not None and 0 <= named < len(items):
        rest = (*items[:named], *items[named + 1 :])
        return Blame(items[named], (Piece(rest),) if rest else ())
    if len(items) == 1:
        return Blame(items[0], ())
    return Blame(None, halves(piece, certain=isinstance(exc, InputRefused)))


def halves(piece: Piece, *, certain: bool) -> tuple[Piece, Piece]:
    """Both halves; ``certain`` is that at least one text is to blame, not just the size."""
    middle = (len(piece.items) + 1) // 2
    return Piece(piece.items[:middle], clears=certain), Piece(piece.items[middle:])


def refusal_of(exc: ProviderError) -> Refusal:
    """Why a text that was sent alone has no vector."""
    reason = REFUSED
    if isinstance(exc, RequestTooLarge):
        reason = TOO_LONG
    elif isinstance(exc, InvalidReply):
        reason = BAD_REPLY
    return Refusal(reason, str(exc.fault.code or exc.fault.status or ""))
