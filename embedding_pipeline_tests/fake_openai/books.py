"""What the API billed, and what it was asked."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from embedding_pipeline_tests.fake_openai.rules import Request


def name_of(text: str) -> str:
    """How the books call a text: its sha256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Books:
    """Totals since the last reset; money in nano-USD.

    Every billed token is either in a whole and right answer or ``lost``. What a client can
    know of the bill at most is ``reported``; what it must fear at least is ``lost``, and at
    most ``lost + doubtful``.

    Attributes:
        requests: everything that arrived at the endpoint.
        billed_requests: what was billed, whether the answer arrived or not.
        inputs: texts billed.
        tokens: tokens billed.
        cost_nano_usd: the bill.
        reported: tokens in the usage of answers that were whole and right.
        lost: tokens billed for answers that were not.
        doubtful: tokens of requests that were not billed, and ended so that nobody can know.
        statuses: answers by status, as text; ``none`` for connections cut off.
        faults: faults that struck, by kind.
        keys: requests by API key.
        in_flight: requests being answered now.
        most_in_flight: the highest that ever was.
        billed: how often each text was billed, by its sha256.
    """

    requests: int = 0
    billed_requests: int = 0
    inputs: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0
    reported: int = 0
    lost: int = 0
    doubtful: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    billed: Counter[str] = field(default_factory=Counter)

    def times_billed(self, text: str) -> int:
        """How often ``text`` was billed."""
        return self.billed[name_of(text)]

    @property
    def billed_twice(self) -> int:
        """Billings beyond the first of each text."""
        return sum(count - 1 for count in self.billed.values())

    def arrive(self, key: str) -> None:
        self.requests += 1
        self.keys[key] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def leave(self, status: str) -> None:
        self.statuses[status] += 1
        self.in_flight -= 1

    def bill(self, request: Request, *, discount: int = 1) -> None:
        self.billed_requests += 1
        self.inputs += len(request.texts)
        self.tokens += request.tokens
        self.cost_nano_usd += request.tokens * request.model.price // discount
        self.billed.update(map(name_of, request.texts))

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, content: str | bytes) -> "Books":
        values: dict[str, Any] = json.loads(content)
        for name in ("statuses", "faults", "keys", "billed"):
            values[name] = Counter(values[name])
        return cls(**values)
