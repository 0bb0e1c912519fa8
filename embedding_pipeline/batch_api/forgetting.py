"""A submission that nobody can ask after any more, taken off the books by a person's word.

Belongs here: one transaction that frees its keys and its money. Does not belong here: the
provider, who is not told (``advancing`` cancels), or which submissions are meant.
"""

import uuid
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from embedding_pipeline.batch_api import books, keys
from embedding_pipeline.batch_api.records import State, Submission, Terms
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.records import Space
from embedding_pipeline.state.schema import spaces

NOTE: Final = "forgotten by hand"

NEVER_SENT: Final = (State.OPEN, State.UPLOADED)
"""States in which there was no batch, and so is no bill."""


@dataclass(frozen=True)
class Forgotten:
    """What became of a submission.

    Attributes:
        submission: as it is now.
        freed: keys that may be sent again.
        unknown: those of them that are booked as ``unknown``, since a batch may be billed.
    """

    submission: Submission
    freed: int
    unknown: int


def forget(connection: Connection, submission_id: str, now_ms: int) -> Forgotten | None:
    """End a submission without asking anybody; None while a process works on it.

    Keys of a batch that was made, or may have been, are booked as unknown at our own count.
    """
    holder = uuid.uuid4().hex
    submission = books.take(connection, submission_id, holder, now_ms)
    if submission is None:
        return None
    flight, freed, unknown = flights.find(connection, submission_id), 0, 0
    if flight is not None:
        sent = submission.state not in NEVER_SENT
        terms = _terms(connection, submission, flight)
        freed, unknown = keys.end(connection, submission, terms, lambda _: sent)
    note = f"{NOTE}; {submission.note}" if submission.note else NOTE
    books.change(connection, submission_id, holder, now_ms, state=State.DONE, note=note[:1000])
    books.let_go(connection, submission_id, holder)
    after = books.find(connection, submission_id)
    assert after is not None
    return Forgotten(after, freed, unknown)


def _terms(connection: Connection, submission: Submission, flight: Flight) -> Terms:
    """What held when it was sent, by its own flight: the settings may say another thing now."""
    name = connection.scalar(select(spaces.c.name).where(spaces.c.id == flight.space_id))
    space = Space.parse(str(name))
    return Terms(
        space=space,
        space_id=flight.space_id,
        model=space.model,
        provider=flight.provider,
        queue=submission.queue,
        price=flight.price,
        dtype="",
        identity="",
    )
