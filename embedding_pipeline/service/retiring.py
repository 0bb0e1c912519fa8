"""Ending leases: what dead services left behind is booked and free again.

Belongs here: the one order in which that is done. Does not belong here: who is dead
(``state.owners``), or what is booked for it (``ledger.flights``).
"""

import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from embedding_pipeline.cache import claims
from embedding_pipeline.ledger import budgets, flights
from embedding_pipeline.state import owners

log = logging.getLogger(__name__)


def sweep(connection: Connection, now_ms: int, *, asking: str = "") -> int:
    """Book and release what dead services left behind; returns how many flights.

    ``asking`` is the owner who does it, and so is not dead.
    """
    return retire(connection, owners.dead(connection, now_ms, asking=asking))


def retire(connection: Connection, owner_ids: Sequence[str]) -> int:
    """End leases: what is still out is booked as unknown; returns how many flights."""
    if not owner_ids:
        return 0
    booked = flights.expire(connection, owner_ids)
    if booked:
        log.warning("%d requests of ended processes booked as unknown", booked)
        budgets.release_orphans(connection)
    claims.release_orphans(connection)
    for owner_id in owner_ids:
        owners.remove(connection, owner_id)
    return booked
