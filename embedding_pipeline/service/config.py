"""How a service behaves, in its own words.

Belongs here: one frozen value, made by ``assembly`` from the settings. Does not belong
here: reading settings, or acting on any of it.
"""

from dataclasses import dataclass
from typing import Final

from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Kind
from embedding_pipeline.service.keeping import UNBOUNDED, Bound
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.vectors.provenance import NO_RECIPE, Recipe

WINDOW_BYTES: Final = 40 << 20


@dataclass(frozen=True)
class ServiceConfig:
    """Everything a service is told.

    Attributes:
        spec: the model.
        kind: ``api`` or ``local``.
        provider: name of the provider asked first.
        dimensions: length of the vectors handed out.
        caps: what one request may hold.
        rules: the policy for text the API would refuse.
        max_in_flight: requests of this process that are out at once.
        max_wait_seconds: how long an online caller waits for company.
        memory_bytes: bound of the memory tier.
        dtype: how vectors are stored.
        bound: on the durable tier.
        patience_seconds: longest wait for another process's request.
        run_id: the run the work belongs to, or "".
        fingerprint: fingerprint of the settings that shape the vectors.
        budgets: what bounds spending, if anything does.
        recipe: the same in words, as each file keeps it.
        defers_outages: bulk work that may leaves for later what a provider does not deliver.
        window_bytes: vectors of a bulk run's open batches, at most (one batch may exceed it).
    """

    spec: ModelSpec
    kind: Kind
    provider: str
    dimensions: int
    caps: RequestCaps
    rules: InputRules
    max_in_flight: int = 16
    max_wait_seconds: float = 0.01
    memory_bytes: int = 256 << 20
    dtype: str = "float32"
    bound: Bound = UNBOUNDED
    patience_seconds: float = 1000.0
    run_id: str = ""
    fingerprint: str = ""
    budgets: Budgets | None = None
    recipe: Recipe = NO_RECIPE
    defers_outages: bool = False
    window_bytes: int = WINDOW_BYTES
