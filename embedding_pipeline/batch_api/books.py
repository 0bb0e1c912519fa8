"""Submissions in the shared store: statements, to be run inside the caller's transaction.

Belongs here: reading and changing ``submissions``, who works on one, and room in the
provider's queue. Does not belong here: keys, vectors and money (``keys``), or calls.

Whoever works on a submission holds its lease, which outlasts every call it makes. A process
that dies leaves the lease to run out; the next one then finds out by looking what was sent.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from embedding_pipeline.batch_api.records import ENQUEUED, State, Submission, Terms
from embedding_pipeline.errors import StateError
from embedding_pipeline.records import Account
from embedding_pipeline.state.schema import claims, deferred, spaces, submissions

LEASE_MS: Final = 3_600_000
"""Longer than any step: moving a file has 30 minutes."""

_C: Final = submissions.c


def open_submission(
    connection: Connection,
    submission_id: str,
    terms: Terms,
    *,
    run_key: str,
    holder: str,
    now_ms: int,
) -> None:
    """A new submission, leased to its maker."""
    connection.execute(
        insert(submissions).values(
            id=submission_id,
            space_id=terms.space_id,
            queue=terms.queue,
            run_key=run_key,
            state=State.OPEN.value,
            attempt=0,
            inputs=0,
            weight=0,
            booked_tokens=0,
            accounts="[]",
            file_id="",
            batch_id="",
            output_id="",
            error_id="",
            status="",
            opened_at=now_ms,
            changed_at=now_ms,
            due_at=0,
            holder=holder,
            leased_until=now_ms + LEASE_MS,
            note="",
        )
    )


def find(connection: Connection, submission_id: str) -> Submission | None:
    """A submission by its name."""
    row = connection.execute(select(submissions).where(_C.id == submission_id)).first()
    return None if row is None else _load(row)


def listing(
    connection: Connection, *, finished: bool = True, queue: str | None = None
) -> list[Submission]:
    """Submissions, oldest first; only those with something left to do unless ``finished``."""
    query = select(submissions).order_by(_C.opened_at, _C.id)
    if not finished:
        query = query.where(_C.state != State.DONE.value)
    if queue is not None:
        query = query.where(_C.queue == queue)
    return [_load(row) for row in connection.execute(query)]


def ended(connection: Connection, space_id: int, since_ms: int) -> list[Submission]:
    """Submissions of a space that changed since then, with nothing out any more."""
    over = [State.SETTLED.value, State.DONE.value]
    query = select(submissions).where(
        _C.space_id == space_id, _C.changed_at >= since_ms, _C.state.in_(over)
    )
    return [_load(row) for row in connection.execute(query)]


def queues(connection: Connection) -> list[tuple[str, str]]:
    """Space and queue of the submissions with something left to do, each pair once."""
    query = (
        select(spaces.c.name, _C.queue)
        .join(spaces, spaces.c.id == _C.space_id)
        .where(_C.state != State.DONE.value)
    )
    found = connection.execute(query.distinct().order_by(spaces.c.name, _C.queue))
    return [(name, queue) for name, queue in found]


def days_in_batches(connection: Connection, space_id: int) -> set[str]:
    """The days with deferred chunks whose keys a submission holds."""
    d, c = deferred.c, claims.c
    held = (
        select(d.partition)
        .join(claims, (c.space_id == d.space_id) & (c.digest == d.digest))
        .join(submissions, _C.id == c.flight_id)
        .where(d.space_id == space_id)
    )
    return set(connection.execute(held.distinct()).scalars())


def take(connection: Connection, submission_id: str, holder: str, now_ms: int) -> Submission | None:
    """Lease a submission; None while another process works on it, or when nothing is left."""
    done = connection.execute(
        update(submissions)
        .where(
            _C.id == submission_id,
            _C.state != State.DONE.value,
            or_(_C.leased_until < now_ms, _C.holder == holder),
        )
        .values(holder=holder, leased_until=now_ms + LEASE_MS)
    )
    return find(connection, submission_id) if done.rowcount else None


def change(
    connection: Connection, submission_id: str, holder: str, now_ms: int, **values: Any
) -> None:
    """Write down what happened, and keep the lease.

    Raises:
        StateError: the lease ran out meanwhile, and another process has it.
    """
    state = values.get("state")
    if isinstance(state, State):
        values["state"] = state.value
    done = connection.execute(
        update(submissions)
        .where(_C.id == submission_id, _C.holder == holder)
        .values(changed_at=now_ms, leased_until=now_ms + LEASE_MS, **values)
    )
    if not done.rowcount:
        raise StateError(
            f"batch submission {submission_id} was taken over by another process; "
            "this one stood still for too long"
        )


def let_go(connection: Connection, submission_id: str, holder: str) -> None:
    """End the lease, if it is still held."""
    connection.execute(
        update(submissions)
        .where(_C.id == submission_id, _C.holder == holder)
        .values(holder="", leased_until=0)
    )


def book_tokens(connection: Connection, submission_id: str, tokens: int) -> bool:
    """Add to what a submission was billed; whether these are its first."""
    mine = _C.id == submission_id
    before = connection.scalar(select(_C.booked_tokens).where(mine))
    connection.execute(
        update(submissions).where(mine).values(booked_tokens=_C.booked_tokens + tokens)
    )
    return not before


def write_accounts(connection: Connection, submission_id: str, accounts: Sequence[Account]) -> None:
    """Who pays for the keys of a submission."""
    listed = [[a.partition, a.project, a.user] for a in accounts]
    connection.execute(
        update(submissions).where(_C.id == submission_id).values(accounts=json.dumps(listed))
    )


def room(connection: Connection, submission: Submission, queue: str, limit: int) -> bool:
    """Whether a batch may join the provider's queue now.

    In the order they were made; one that is larger than the limit goes when it is alone.
    """
    others = select(func.coalesce(func.sum(_C.weight), 0), func.count()).where(
        _C.queue == queue,
        _C.id != submission.id,
        _C.state.in_([state.value for state in ENQUEUED]),
    )
    weight, count = connection.execute(others).one()
    if count and int(weight) + submission.weight > limit:
        return False
    older = select(_C.id).where(
        _C.queue == queue,
        _C.state == State.UPLOADED.value,
        _C.id != submission.id,
        or_(
            _C.opened_at < submission.opened_ms,
            (_C.opened_at == submission.opened_ms) & (_C.id < submission.id),
        ),
    )
    return connection.execute(older.limit(1)).first() is None


def _load(row: Row[Any]) -> Submission:
    accounts = tuple(
        Account(project, user, partition) for partition, project, user in json.loads(row.accounts)
    )
    return Submission(
        id=row.id,
        queue=row.queue,
        run_key=row.run_key,
        state=State(row.state),
        attempt=row.attempt,
        inputs=row.inputs,
        weight=row.weight,
        booked_tokens=row.booked_tokens,
        accounts=accounts,
        file_id=row.file_id,
        batch_id=row.batch_id,
        output_id=row.output_id,
        error_id=row.error_id,
        status=row.status,
        opened_ms=row.opened_at,
        changed_ms=row.changed_at,
        due_ms=row.due_at,
        note=row.note,
    )
