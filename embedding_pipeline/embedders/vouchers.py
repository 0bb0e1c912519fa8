"""What is known of a compatible server: whether it makes the vectors of a space.

Belongs here: the decision what to do about a server (pure), and statements on ``vouchers``.
Does not belong here: asking anybody (``vouching``).

A server that was found to make the same vectors is believed for as long as it names the
same model. One that was not is asked again after ``HOLD_SECONDS``. One process checks, all
others wait for what it finds.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from sqlalchemy import Connection, select

from embedding_pipeline.records import Vectors
from embedding_pipeline.state.schema import vouchers
from embedding_pipeline.state.statements import upsert_into

LEAST_SIMILARITY: Final = 0.99
"""Cosine. Other numerics of one model, float16 included, stay above 0.999; a model that was
quantised to 8 bits without care was measured at 0.94, another model at 0."""

HOLD_SECONDS: Final = 900
"""How long a server that makes other vectors is left alone."""

LEASE_SECONDS: Final = 60
"""Longer than a check can take: then another process may try."""

_PPM: Final = 1_000_000


class Stance(StrEnum):
    """What to do about a server."""

    TRUST = "trust"
    REFUSE = "refuse"
    CHECK = "check"
    WAIT = "wait"


@dataclass(frozen=True)
class Voucher:
    """What was found.

    Attributes:
        model: the name of the model in the server's replies, when it was checked.
        same: whether its vectors are those of the space; None while nothing was found.
        similarity: the lowest cosine between its vectors and the known ones.
        texts: how many were compared.
        at_ms: when.
        leased_until_ms: until when somebody checks it.
    """

    model: str = ""
    same: bool | None = None
    similarity: float = 0.0
    texts: int = 0
    at_ms: int = 0
    leased_until_ms: int = 0


def stance(found: Voucher | None, reported: str | None, now_ms: int) -> Stance:
    """What to do about a server. Pure.

    Args:
        found: what is stored of it.
        reported: what it calls its model now; None before it has said so.
        now_ms: the instant.
    """
    if found is None:
        return Stance.CHECK
    if found.same is not None and reported in (None, found.model):
        if found.same:
            return Stance.TRUST
        if now_ms < found.at_ms + HOLD_SECONDS * 1000:
            return Stance.REFUSE
    return Stance.WAIT if now_ms < found.leased_until_ms else Stance.CHECK


def least_similarity(known: Vectors, vectors: Vectors) -> float:
    """The lowest cosine, row by row; both of unit norm."""
    return float(np.einsum("ij,ij->i", known, vectors, dtype=np.float64).min())


def find(connection: Connection, space_id: int, provider: str) -> Voucher | None:
    """What is stored of a server."""
    c = vouchers.c
    row = connection.execute(
        select(vouchers).where(c.space_id == space_id, c.provider == provider)
    ).first()
    if row is None:
        return None
    same = {"same": True, "other": False}.get(row.verdict)
    return Voucher(row.model, same, row.similarity_ppm / _PPM, row.texts, row.at, row.leased_until)


def lease(connection: Connection, space_id: int, provider: str, holder: str, now_ms: int) -> None:
    """Write down that ``holder`` checks; what was found before stands meanwhile."""
    until = now_ms + LEASE_SECONDS * 1000
    _put(connection, space_id, provider, holder=holder, leased_until=until)


def release(connection: Connection, space_id: int, provider: str, holder: str) -> None:
    """The check of ``holder`` found nothing; others may try."""
    c = vouchers.c
    connection.execute(
        vouchers.update()
        .where(c.space_id == space_id, c.provider == provider, c.holder == holder)
        .values(leased_until=0)
    )


def keep(connection: Connection, space_id: int, provider: str, found: Voucher) -> None:
    """Write down what a check found; nobody checks any more."""
    _put(
        connection,
        space_id,
        provider,
        model=found.model,
        verdict="same" if found.same else "other",
        similarity_ppm=round(found.similarity * _PPM),
        texts=found.texts,
        at=found.at_ms,
        leased_until=0,
    )


def _put(connection: Connection, space_id: int, provider: str, **values: object) -> None:
    blank = {
        "model": "",
        "verdict": "",
        "similarity_ppm": 0,
        "texts": 0,
        "at": 0,
        "holder": "",
        "leased_until": 0,
    }
    row = {"space_id": space_id, "provider": provider, **blank, **values}
    new = upsert_into(connection, vouchers).values(row)
    connection.execute(
        new.on_conflict_do_update(index_elements=["space_id", "provider"], set_=dict(values))
    )
