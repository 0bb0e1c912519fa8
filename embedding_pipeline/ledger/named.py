"""Chunks without a vector, by name: what ``deferred`` and ``quarantine`` are asked alike.

Belongs here: reading names of chunks by partition. Does not belong here: why a chunk is there.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, Table, select

from embedding_pipeline.state.statements import BATCH


def named_in(
    connection: Connection, table: Table, space_id: int, partitions: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The chunks of some partitions that stand in ``table``, by partition; asked for together."""
    c, found = table.c, dict[str, set[str]]()
    for start in range(0, len(partitions), BATCH):
        query = select(c.partition, c.chunk_id).where(
            c.space_id == space_id, c.partition.in_(partitions[start : start + BATCH])
        )
        for partition, chunk_id in connection.execute(query):
            found.setdefault(partition, set()).add(chunk_id)
    return {partition: frozenset(found.get(partition, ())) for partition in partitions}
