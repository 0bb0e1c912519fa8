"""What a process and the store of the limits say to each other, as frozen values.

Belongs here: the settings of a limit as numbers, the question and the answer. Does not
belong here: doing anything. Instants and durations are whole milliseconds.
"""

from dataclasses import dataclass
from typing import Final

URGENT: Final = 0
PRIORITIES: Final = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings say.

    Attributes:
        tokens: tokens a minute, 0 to learn them.
        requests: requests a minute, 0 to learn them.
        burst: ms worth of the rate that may go at once.
        reserve: ms worth of the rate kept for urgent work.
        ramp: 1 to climb above a million tokens a minute by the API's rule from the start.
    """

    tokens: int = 0
    requests: int = 0
    burst: int = 10_000
    reserve: int = 2_000
    ramp: int = 0

    @property
    def span(self) -> int:
        """Ms worth of the rate that a bucket holds."""
        return self.burst + self.reserve


@dataclass(frozen=True, slots=True)
class Want:
    """A request somebody wants to send.

    Attributes:
        project: who pays.
        weight: the project's weight, in thousandths.
        priority: 0 urgent, 1 normal, 2 bulk.
        age: ms since it began to wait.
        tokens: its cost, in the API's own estimate.
    """

    project: str
    weight: int
    priority: int
    age: int
    tokens: int


@dataclass(frozen=True, slots=True)
class News:
    """How a request ended, as far as the limits care. Missing headers are -1.

    Attributes:
        kind: ``ok``, ``refused`` (429) or ``ramp`` (told to slow down).
        resource: ``tokens``, ``requests`` or "" where a refusal does not say.
        tokens: the request's cost.
        granted_at: when it got its permit, by the store's time.
        retry_after: ms the provider asked to wait.
        limits: tokens and requests a minute, by the headers.
        remaining: tokens and requests left, by the headers.
        project, priority: on whose behalf it was sent.
        sustained: tokens and requests a minute that a refused process had seen sustained.
    """

    kind: str
    resource: str = ""
    tokens: int = 0
    granted_at: int = 0
    retry_after: int = 0
    limits: tuple[int, int] = (-1, -1)
    remaining: tuple[int, int] = (-1, -1)
    project: str = ""
    priority: int = 1
    sustained: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process says in one step.

    Attributes:
        client: the process.
        wants: what it wants to send, each priority and project in order.
        returned: tokens and requests of permits that were not used.
        out: tokens and requests it has under way.
        news: how requests ended since it last asked.
    """

    client: str
    wants: tuple[Want, ...] = ()
    returned: tuple[int, int] = (0, 0)
    out: tuple[int, int] = (0, 0)
    news: tuple[News, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process is told.

    Attributes:
        now: the store's time, ms.
        granted: indexes of the wants that may be sent.
        retry_after: ms until the first of the others may be, as things stand; 0 if none.
        ahead: who goes before it: project, requests, tokens.
        rates: tokens and requests a minute, at present.
        known: whether each has a limit: a named one, or one that was met.
    """

    now: int
    granted: tuple[int, ...]
    retry_after: int
    ahead: tuple[tuple[str, int, int], ...]
    rates: tuple[int, int]
    known: tuple[bool, bool]
