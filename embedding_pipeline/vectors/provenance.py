"""What a partition of ``embeddings`` was made from, kept in the file itself.

Belongs here: the record and its form as Parquet key/value metadata. Does not belong
here: deciding what to do when it does not match.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from embedding_pipeline.records import Space

_PREFIX: Final = "embedding_pipeline."


@dataclass(frozen=True)
class Provenance:
    """What the vectors of one file are, and where they came from.

    Attributes:
        space: the space of every vector in the file.
        dimensions: length of the vectors (the view).
        run_id: the run that wrote the file, or "".
        fingerprint: fingerprint of the settings that shape the vectors.
        counts: figures of that run (``chunks``, ``embedded``, ``cached``, …).
    """

    space: Space
    dimensions: int
    run_id: str = ""
    fingerprint: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """The record as the key/value pairs of a Parquet footer."""
        values = {
            "space": str(self.space),
            "dimensions": str(self.dimensions),
            "run_id": self.run_id,
            "fingerprint": self.fingerprint,
            "counts": json.dumps(dict(self.counts)),
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
        )
