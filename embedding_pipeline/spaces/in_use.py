"""Which spaces somebody counts on: nothing of them is evicted unless told.

Belongs here: the list. Does not belong here: evicting (``cache``).
"""

from sqlalchemy import Connection

from embedding_pipeline.records import Space
from embedding_pipeline.spaces import builds, history


def in_use(connection: Connection) -> frozenset[Space]:
    """The active space, the one being built beside it, and the one a rollback goes to."""
    active, build = history.active(connection), builds.current(connection)
    targets = (
        active.target if active else None,
        build.target if build else None,
        history.previous(history.history(connection)),
    )
    return frozenset(target.space for target in targets if target is not None)
