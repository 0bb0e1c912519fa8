"""On whose behalf a request is made, carried past the wrappers that need not know.

Belongs here: the context and what tenants' settings make of it. Does not belong here:
limits themselves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from embedding_pipeline.limits.config import TenantConfig
from embedding_pipeline.records import Priority

RANKS: Final = {Priority.URGENT: 0, Priority.NORMAL: 1, Priority.BULK: 2}


@dataclass
class Caller:
    """Who pays for most of a request, how urgent it is, and whether it ever left.

    Attributes:
        project: the tenant that pays.
        priority: who goes first.
        awaiting: it waits for a permit right now.
        permits: permits it got so far.
    """

    project: str = "default"
    priority: Priority = Priority.NORMAL
    awaiting: bool = False
    permits: int = 0

    @property
    def unsent(self) -> bool:
        """Nothing left yet: the first permit is still waited for."""
        return self.awaiting and self.permits == 0


_CALLER: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)


@contextmanager
def on_behalf_of(project: str, priority: Priority) -> Iterator[Caller]:
    """The request made inside counts for this project."""
    caller = Caller(project, priority)
    token = _CALLER.set(caller)
    try:
        yield caller
    finally:
        _CALLER.reset(token)


def current_caller() -> Caller:
    """On whose behalf the code that asks is running."""
    return _CALLER.get() or Caller()


class Tenants:
    """What the settings say about projects."""

    def __init__(self, tenants: Sequence[TenantConfig] = ()) -> None:
        self._by_project = {tenant.project: tenant for tenant in tenants}

    def weight(self, project: str) -> int:
        """The project's weight in thousandths."""
        tenant = self._by_project.get(project)
        return round(tenant.weight * 1000) if tenant else 1000

    def priority(self, caller: Caller) -> Priority:
        """The caller's own priority where it names one, else the tenant's."""
        tenant = self._by_project.get(caller.project)
        if tenant is None or caller.priority is not Priority.NORMAL:
            return caller.priority
        return Priority(tenant.priority)
