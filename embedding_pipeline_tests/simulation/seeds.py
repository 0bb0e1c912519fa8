"""What a seed means: the work, who does it, and what befalls them.

Belongs here: drawing one story from one number. Pure. Does not belong here: acting it out.

Most stories are small, since two processes that meet over three texts meet as four over thirty
do, in a quarter of the time; every twenty-fifth is wide.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.records import Priority
from embedding_pipeline_tests.service.harness import PRICE
from embedding_pipeline_tests.simulation.api import POISON, Weather
from embedding_pipeline_tests.simulation.disk import Trouble
from embedding_pipeline_tests.simulation.machine import START

DAYS: Final = ("2026-01-01", "2026-01-02", "2026-01-03")
PROJECTS: Final = ("a", "b", "c")
USERS: Final = ("", "", "ann")
SECRET: Final = "SECRET"
"""In every text, so that a text that leaked is found."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a day."""

    id: str
    text: str
    project: str
    user: str


@dataclass(frozen=True)
class Days:
    """Embed these days, in this order, in one run."""

    days: tuple[str, ...]
    priority: Priority


@dataclass(frozen=True)
class Online:
    """Ask for single texts, one after the other or at once."""

    texts: tuple[str, ...]
    project: str
    priority: Priority
    at_once: bool


@dataclass(frozen=True)
class Blow:
    """At its n-th step something happens to a process.

    Attributes:
        step: counted from its start.
        stop_seconds: it stands still for so long; 0: see ``kill``.
        kill: it is gone; else its work is cancelled, as by Ctrl-C.
    """

    step: int
    stop_seconds: float = 0.0
    kill: bool = False


@dataclass(frozen=True)
class Worker:
    """One process: when it begins, what it does, what befalls it at each of its lives.

    Attributes:
        seen: that it was killed is seen by others at once, as on one machine; else only its
            lease tells.
    """

    begins: float
    work: Days | Online
    lives: tuple[Blow | None, ...]
    model: int = 0
    seen: bool = True


@dataclass(frozen=True)
class Story:
    """Everything that happens."""

    seed: int
    start: float
    days: dict[str, tuple[Chunk, ...]]
    workers: tuple[Worker, ...]
    weathers: tuple[Weather, ...]
    trouble: Trouble
    budgets: tuple[BudgetConfig, ...] = ()
    limits: tuple[int, int] | None = None
    told: bool = True
    max_inputs: int = 4
    in_flight: int = 4
    request_tokens: int = 80
    window_rows: int = 16
    on_outage_defer: bool = True

    @property
    def tokens(self) -> int:
        """All texts once."""
        texts = {chunk.text for chunks in self.days.values() for chunk in chunks}
        return sum(map(len, texts))

    @property
    def kinds(self) -> set[str]:
        """What it has in it, in the words of ``census``."""
        told = {
            "several processes": len(self.workers) > 1,
            "two models": len({worker.model for worker in self.workers}) > 1,
            "two providers": len(self.weathers) > 1,
            "budgets": bool(self.budgets),
            "rate limits": self.limits is not None,
        }
        return {kind for kind, there in told.items() if there}


@dataclass(frozen=True)
class Scale:
    """How large stories are; of each a value is drawn.

    Attributes:
        days, workers, texts: how many there are.
        chunks: of a day at most.
        lives: how many a process loses.
        steps: by when it does so.
        asked: texts asked for online at most.
        limits: requests and tokens a minute.
        shares: how much of what goes wrong with a provider does so.
        often: how much oftener something goes wrong there at all.
        broke: share of the calls of a provider whose quota is used up.
        away: seconds an outage lasts.
    """

    days: Sequence[int]
    workers: Sequence[int]
    texts: Sequence[int]
    chunks: int
    lives: Sequence[int]
    steps: Sequence[int]
    asked: int
    limits: Sequence[tuple[int, int]]
    shares: Sequence[float]
    often: float
    broke: float
    away: Sequence[float]


WIDE: Final = Scale(
    (1, 2, 3),
    (1, 1, 2, 2, 3, 4),
    (2, 6, 12, 24),
    20,
    (0, 0, 1, 1, 2),
    (20, 60, 200, 600),
    8,
    ((60, 2_000), (300, 6_000)),
    (0.05, 0.2, 0.5),
    1.0,
    0.02,
    (1.0, 30.0, 400.0),
)
SMALL: Final = Scale(
    (1, 1, 1, 2),
    (1, 1, 2, 2, 2, 3),
    (1, 2, 3, 4, 6),
    6,
    (0, 0, 0, 1, 1),
    (20, 40, 80, 160),
    3,
    ((1, 300), (60, 2_000), (60, 2_000)),
    (0.2, 0.5, 0.7),
    1.6,
    0.3,
    (1.0, 30.0, 130.0),
)


def scale_of(seed: int) -> Scale:
    """How large the story of a seed is, unless somebody says."""
    return WIDE if seed % 25 == 24 else SMALL


def story_of(seed: int, scale: Scale | None = None) -> Story:
    """The story of a seed, the same every time."""
    dice, scale = random.Random(seed), scale or scale_of(seed)
    texts = _texts(dice, scale)
    days = {day: _day(dice, texts, scale) for day in DAYS[: dice.choice(scale.days)]}
    models = 2 if dice.random() < 0.2 else 1
    workers = tuple(
        _worker(dice, list(days), texts, models, scale) for _ in range(dice.choice(scale.workers))
    )
    used = {chunk.text for chunks in days.values() for chunk in chunks}
    return Story(
        seed,
        START - START % 86400 + (dice.choice((86_390.0, 86_340.0)) if _often(dice, 0.3) else 4e4),
        days,
        workers,
        tuple(_weather(dice, scale) for _ in range(dice.choice((1, 1, 1, 2)))),
        _trouble(dice),
        _budgets(dice, sum(map(len, used))) if _often(dice, 0.5) else (),
        dice.choice(scale.limits) if _often(dice, 0.35) else None,
        _often(dice, 0.6),
        dice.choice((2, 4, 8)),
        dice.choice((1, 2, 4)),
        dice.choice((80, 256)),
        dice.choice((4, 16, 1000)),
        _often(dice, 0.7),
    )


def _often(dice: random.Random, share: float) -> bool:
    return dice.random() < share


def _texts(dice: random.Random, scale: Scale) -> list[str]:
    count = dice.choice(scale.texts)
    poisoned = dice.sample(range(count), min(count, dice.choice((0, 0, 1, 2))))
    return [
        f"{SECRET} {number} {POISON if number in poisoned else ''}" + "x" * dice.randint(0, 30)
        for number in range(count)
    ]


def _day(dice: random.Random, texts: Sequence[str], scale: Scale) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(f"c{number}", dice.choice(texts), dice.choice(PROJECTS), dice.choice(USERS))
        for number in range(dice.randint(0, min(scale.chunks, 2 * len(texts))))
    )


def _worker(
    dice: random.Random, days: Sequence[str], texts: Sequence[str], models: int, scale: Scale
) -> Worker:
    lives = tuple(_blow(dice, scale) for _ in range(dice.choice(scale.lives)))
    lane = dice.choice(list(Priority))
    work: Days | Online = Days(tuple(dice.sample(days, dice.randint(1, len(days)))), lane)
    if _often(dice, 0.3):
        some = tuple(dice.choice(texts) for _ in range(dice.randint(1, scale.asked)))
        work = Online(some, dice.choice(PROJECTS), lane, _often(dice, 0.5))
    begins = dice.choice((0.0, 0.0, dice.uniform(0, 2), dice.uniform(0, 100)))
    return Worker(begins, work, lives, dice.randrange(models), _often(dice, 0.5))


def _blow(dice: random.Random, scale: Scale) -> Blow:
    step = int(dice.choice(scale.steps) * dice.random()) + 1
    kind = dice.random()
    if kind < 0.55:
        return Blow(step, kill=True)
    if kind < 0.8:
        return Blow(step, stop_seconds=dice.choice((5.0, 50.0, 70.0, 200.0)))
    return Blow(step)


def _weather(dice: random.Random, scale: Scale) -> Weather:
    def share(often: float) -> float:
        return dice.choice(scale.shares) if dice.random() < often * scale.often else 0.0

    outages: list[tuple[float, float]] = []
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        begin = dice.choice((0.0, dice.uniform(0, 3)))
        outages.append((begin, begin + dice.choice(scale.away)))
    return Weather(
        dice.choice((0.02, 0.3, 5.0)),
        lost=share(0.25),
        late=share(0.1),
        invalid=share(0.15),
        failing=share(0.25),
        busy=share(0.15),
        broke=scale.broke if dice.random() < 0.05 else 0.0,
        outages=tuple(outages),
        names_index=_often(dice, 0.5),
    )


def _trouble(dice: random.Random) -> Trouble:
    return Trouble(
        dice.choice((0.001, 0.05, 1.0)),
        dice.choice((0.0, 0.0, 0.0, 0.02, 0.1)),
        dice.choice((0.0, 0.0, 0.0, 0.0, 0.05)),
    )


def _budgets(dice: random.Random, tokens: int) -> tuple[BudgetConfig, ...]:
    made: dict[tuple[str, str], BudgetConfig] = {}
    for _ in range(dice.randint(1, 3)):
        scope = dice.choice(("all", "project:a", "project:b", "user:ann"))
        period = dice.choice(("day", "total", "month"))
        limit = tokens * PRICE * dice.choice((0.0, 0.1, 0.4, 1.0, 3.0)) / 1e9
        made[scope, period] = BudgetConfig.model_validate(
            {"scope": scope, "period": period, "limit_usd": limit}
        )
    return tuple(made.values())
