"""Which space is active, and how it came to be: statements on ``space_history``.

Belongs here: reading and appending, each switch one row in one transaction. Does not
belong here: whether a switch is right (``gate``, ``completeness``).
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space
from embedding_pipeline.spaces.records import Action, Event, Target
from embedding_pipeline.state.schema import space_history

_T = space_history.c


def history(connection: Connection) -> list[Event]:
    """Every switch and drop, oldest first."""
    return [_event(row) for row in connection.execute(select(space_history).order_by(_T.id))]


def active(connection: Connection) -> Event | None:
    """The latest switch; None before the first."""
    query = select(space_history).where(_T.action != Action.DROP).order_by(_T.id.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else _event(row)


def append(
    connection: Connection,
    action: Action,
    target: Target,
    *,
    by: str,
    now_ms: int,
    forced: bool = False,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Add one row, in the caller's transaction."""
    connection.execute(
        insert(space_history).values(
            at=now_ms,
            action=action.value,
            model=target.model,
            space=str(target.space),
            dimensions=target.dimensions,
            by=by,
            forced=int(forced),
            report=json.dumps(report) if report else "",
        )
    )


def unchanged(connection: Connection, seen: Sequence[Event]) -> None:
    """Refuse to go on when the history is not as it was when the caller looked.

    Raises ConfigurationError.
    """
    latest = connection.scalar(select(func.max(_T.id)))
    if latest != (seen[-1].number if seen else None):
        raise ConfigurationError(
            "another space was made active or dropped meanwhile; look with: "
            "embedding-pipeline spaces list, and try again"
        )


def adopt(connection: Connection, target: Target, now_ms: int) -> Target:
    """The active target; ``target`` becomes it when there is none yet."""
    now = active(connection)
    if now is not None:
        return now.target
    append(connection, Action.ADOPT, target, by="first run", now_ms=now_ms)
    return target


def served_until(events: Sequence[Event]) -> dict[Space, int]:
    """For each space that was active: when another took its place, or was rolled back to.

    Milliseconds since the epoch. The active space is not in it.
    """
    switches = [event for event in events if event.action is not Action.DROP]
    ended = {
        before.target.space: after.at_ms
        for before, after in pairwise(switches)
        if before.target.space != after.target.space
    }
    if switches:
        ended.pop(switches[-1].target.space, None)
    return ended


def previous(events: Sequence[Event]) -> Target | None:
    """What a rollback goes to: the last target of another space that was not dropped since."""
    dropped: set[Space] = set()
    now = next((event for event in reversed(events) if event.action is not Action.DROP), None)
    for event in reversed(events):
        if event.action is Action.DROP:
            dropped.add(event.target.space)
        elif now and event.target.space not in dropped | {now.target.space}:
            return event.target
    return None


def kept(events: Sequence[Event], keep_ms: int, now_ms: int) -> Target | None:
    """The way back, while it is kept: what a rollback goes to, kept complete until then."""
    back = previous(events)
    if back is None or served_until(events).get(back.space, 0) + keep_ms <= now_ms:
        return None
    return back


def expired(events: Sequence[Event], keep_ms: int, now_ms: int) -> list[Target]:
    """Targets of spaces whose time is over: to be dropped."""
    ended = served_until(events)
    last = {event.target.space: event for event in events}
    return [
        last[space].target
        for space, at in ended.items()
        if at + keep_ms <= now_ms and last[space].action is not Action.DROP
    ]


def _event(row: Row[Any]) -> Event:
    return Event(
        number=row.id,
        at_ms=row.at,
        action=Action(row.action),
        target=Target(row.model, Space.parse(row.space), row.dimensions),
        by=row.by,
        forced=bool(row.forced),
        report=json.loads(row.report) if row.report else {},
    )
