"""What a client is asked: the same for every one of them.

Belongs here: the model, sizes, and ``Ask``. Does not belong here: anything that needs a package
which some client's environment lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MODEL = "text-embedding-3-small"
KEY = "sk-fake-0123456789abcdef"
"""The key the fake API accepts."""

BATCH = 256
IN_FLIGHT = 16
DAY = "2026-01-01"

MARK = "@held-back@ "
"""How texts begin whose answers the kill's server holds back."""


@dataclass(frozen=True)
class Ask:
    """Some texts to be embedded.

    Attributes:
        base_url: where the API is.
        key: what it accepts.
        texts: what is to be embedded.
        folder: where a client may keep what is to be found again.
        batch: texts of one request.
        budget_usd: a bound on spending, for clients that know such a thing; 0 is none.
    """

    base_url: str
    key: str
    texts: Sequence[str]
    folder: str
    batch: int = BATCH
    budget_usd: float = 0.0
