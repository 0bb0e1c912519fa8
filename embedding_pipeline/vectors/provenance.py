"""What a partition of ``embeddings`` was made from, kept in the file itself.

Belongs here: the record and its form as Parquet key/value metadata. Does not belong
here: deciding what to do when it does not match.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Final, Self

from embedding_pipeline.records import Space

_PREFIX: Final = "embedding_pipeline."


@dataclass(frozen=True)
class Recipe:
    """What shapes vectors besides their space, in words that can be compared and read.

    Each is "" where a file does not say, as those of earlier versions.

    Attributes:
        chunker: how documents were cut.
        dedup: which chunks counted as copies.
        oversize: what was done with text over the API's cap.
        code_version: version of the code that makes vectors and chunks.
    """

    chunker: str = ""
    dedup: str = ""
    oversize: str = ""
    code_version: str = ""


NO_RECIPE: Final = Recipe()


@dataclass(frozen=True)
class Provenance:
    """What the vectors of one file are, and where they came from.

    Attributes:
        space: the space of every vector in the file.
        dimensions: length of the vectors (the view).
        run_id: the run that wrote the file, or "".
        fingerprint: fingerprint of the settings that shape the vectors.
        counts: figures of that run (``chunks``, ``embedded``, ``cached``, …).
        recipe: what else shaped the vectors.
    """

    space: Space
    dimensions: int
    run_id: str = ""
    fingerprint: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    recipe: Recipe = NO_RECIPE

    def to_metadata(self) -> dict[str, str]:
        """The record as the key/value pairs of a Parquet footer."""
        values = {
            "space": str(self.space),
            "dimensions": str(self.dimensions),
            "run_id": self.run_id,
            "fingerprint": self.fingerprint,
            "counts": json.dumps(dict(self.counts)),
            **asdict(self.recipe),
        }
        return {_PREFIX + key: value for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """The inverse of ``to_metadata``. Raises KeyError, ValueError or TypeError."""
        return cls(
            space=Space.parse(metadata[_PREFIX + "space"]),
            dimensions=int(metadata[_PREFIX + "dimensions"]),
            run_id=metadata.get(_PREFIX + "run_id", ""),
            fingerprint=metadata.get(_PREFIX + "fingerprint", ""),
            counts=dict(json.loads(metadata.get(_PREFIX + "counts", "{}"))),
            recipe=Recipe(
                **{part.name: metadata.get(_PREFIX + part.name, "") for part in fields(Recipe)}
            ),
        )
