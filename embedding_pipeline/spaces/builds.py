"""Shadow builds: statements on ``space_builds``.

Belongs here: opening, reading, and moving a build from one state to the next, which
happens once however many processes try. Does not belong here: when (``decision``).
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from embedding_pipeline.records import Space
from embedding_pipeline.spaces.records import OPEN, Build, BuildState, Target
from embedding_pipeline.state.schema import space_builds

_T = space_builds.c


def current(connection: Connection) -> Build | None:
    """The open build, if there is one."""
    states = [state.value for state in OPEN]
    query = select(space_builds).where(_T.state.in_(states)).order_by(_T.id.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else _build(row)


def find(connection: Connection, number: int) -> Build | None:
    """A build by its number."""
    row = connection.execute(select(space_builds).where(_T.id == number)).first()
    return None if row is None else _build(row)


def by_key(connection: Connection, key: str) -> Build | None:
    """A build by its name in Dagster."""
    row = connection.execute(select(space_builds).where(_T.key == key)).first()
    return None if row is None else _build(row)


def listing(connection: Connection) -> list[Build]:
    """All builds, oldest first."""
    return [_build(row) for row in connection.execute(select(space_builds).order_by(_T.id))]


def open_build(
    connection: Connection,
    target: Target,
    state: BuildState,
    *,
    key: str,
    cost_nano_usd: int,
    note: str,
    now_ms: int,
    approved_by: str = "",
) -> Build:
    """A new build, and the end of any other; the one there is if it is for this target."""
    found = current(connection)
    if found is not None and found.target == target:
        return found
    if found is not None:
        move(connection, found, BuildState.CANCELLED, f"{target} is asked for now", now_ms)
    number = connection.execute(
        insert(space_builds)
        .values(
            key=key,
            model=target.model,
            space=str(target.space),
            dimensions=target.dimensions,
            state=state.value,
            opened_at=now_ms,
            changed_at=now_ms,
            cost_nano_usd=cost_nano_usd,
            attempts=0,
            approved_by=approved_by,
            note=note,
            report="",
        )
        .returning(_T.id)
    ).scalar_one()
    made = find(connection, number)
    assert made is not None
    return made


def move(
    connection: Connection,
    build: Build,
    state: BuildState,
    note: str,
    now_ms: int,
    *,
    approved_by: str | None = None,
    cost_nano_usd: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> bool:
    """Change the state, unless another process did so first; says which."""
    changes: dict[str, Any] = {"state": state.value, "note": note, "changed_at": now_ms}
    if cost_nano_usd is not None:
        changes["cost_nano_usd"] = cost_nano_usd
    if approved_by is not None:
        changes["approved_by"] = approved_by
    if report is not None:
        changes["report"] = json.dumps(report)
    return _change(connection, build, changes)


def next_attempt(connection: Connection, build: Build, now_ms: int) -> Build | None:
    """The build with one attempt more; None when another process was first."""
    changes = {"attempts": build.attempts + 1, "changed_at": now_ms}
    return find(connection, build.number) if _change(connection, build, changes) else None


def _change(connection: Connection, build: Build, changes: Mapping[str, Any]) -> bool:
    same = (_T.id == build.number, _T.state == build.state.value, _T.attempts == build.attempts)
    return connection.execute(update(space_builds).where(*same).values(**changes)).rowcount == 1


def _build(row: Row[Any]) -> Build:
    return Build(
        number=row.id,
        key=row.key,
        target=Target(row.model, Space.parse(row.space), row.dimensions),
        state=BuildState(row.state),
        opened_at_ms=row.opened_at,
        changed_at_ms=row.changed_at,
        cost_nano_usd=row.cost_nano_usd,
        attempts=row.attempts,
        approved_by=row.approved_by,
        note=row.note,
        report=json.loads(row.report) if row.report else {},
    )
