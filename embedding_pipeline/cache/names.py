"""Names callers give to vectors (``cache_key``), so as to find them without the text.

Belongs here: statements on ``names``. A name points at a key; it never *is* the key, so
the same name with another text points at that text's vector, never at the old one.
"""

from sqlalchemy import Connection, delete, insert, select

from embedding_pipeline.records import Digest
from embedding_pipeline.state.schema import names


def give(connection: Connection, space_id: int, name: str, digest: Digest) -> None:
    """Let ``name`` point at a key, whatever it pointed at before."""
    c = names.c
    connection.execute(delete(names).where(c.space_id == space_id, c.name == name))
    connection.execute(insert(names).values(space_id=space_id, name=name, digest=digest))


def find(connection: Connection, space_id: int, name: str) -> Digest | None:
    """The key a name points at."""
    c = names.c
    found = connection.scalar(select(c.digest).where(c.space_id == space_id, c.name == name))
    return Digest(bytes(found)) if found is not None else None
