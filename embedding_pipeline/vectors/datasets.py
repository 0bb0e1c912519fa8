"""The datasets under ``data_dir`` and where each of their partitions is.

Belongs here: names, paths and schemas; that an ``embeddings`` file is of the space
and dimensions asked for. Does not belong here: how Parquet is read or written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import (
    COST_SUMMARY,
    DERIVED_CHUNKS,
    DUPLICATE_CHUNKS,
    RAW_CHUNKS,
    REJECTED_ROWS,
    Space,
    embeddings_schema,
)
from embedding_pipeline.vectors.columns import with_view
from embedding_pipeline.vectors.local_storage import LocalStorage
from embedding_pipeline.vectors.partition import BATCH_ROWS, OpenPartition, PartitionFile
from embedding_pipeline.vectors.provenance import NO_RECIPE, Provenance, Recipe
from embedding_pipeline.vectors.storage import Storage, StoredFile
from embedding_pipeline.vectors.writing import PartitionWriter

STAND_INS: Final = "stand_ins"


@dataclass(frozen=True)
class EmbeddingsFile(PartitionFile):
    """One day of vectors of one space, at stated dimensions."""

    space: Space
    dimensions: int

    def provenance(self) -> Provenance:
        """What the file says of itself, whether or not that is what was asked for.

        Raises DataError when it is missing, damaged, or says nothing.
        """
        return self._parse(self.metadata())

    def provenance_of(self, opened: OpenPartition) -> Provenance:
        """``provenance`` of the file held open. Raises DataError when it says nothing."""
        return self._parse(opened.metadata())

    def stored(self) -> "EmbeddingsFile":
        """The same file, at whatever dimensions it says. Raises DataError."""
        return self._at(self.provenance().dimensions)

    def _at(self, dimensions: int) -> "EmbeddingsFile":
        return EmbeddingsFile(
            self.asset,
            self.day,
            self.storage,
            self.name,
            embeddings_schema(dimensions),
            self.space,
            dimensions,
            opened=self.opened,
        )

    def verify(self, parquet: pq.ParquetFile) -> None:
        """Refuse a file of another space or other dimensions. Raises DataError."""
        found = self._parse(self.metadata_of(parquet))
        if (found.space, found.dimensions) != (self.space, self.dimensions):
            raise DataError(
                f"{self.location} holds vectors of {found.space} at {found.dimensions} dimensions, "
                f"not of {self.space} at {self.dimensions}; {self.remedy}"
            )
        super().verify(parquet)

    def _parse(self, metadata: Mapping[str, str]) -> Provenance:
        try:
            return Provenance.from_metadata(metadata)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{self.location} does not say what made it; {self.remedy}") from error

    @contextmanager
    def vectors_writer(
        self,
        *,
        run_id: str,
        fingerprint: str,
        counts: Mapping[str, int] | None = None,
        recipe: Recipe = NO_RECIPE,
    ) -> Iterator["VectorsWriter"]:
        """``writer`` for vectors: its footer says what made them, and how many of what."""
        with self.writer() as writer:
            vectors = VectorsWriter(writer, dict(counts or {}))
            yield vectors
            record = Provenance(
                self.space, self.dimensions, run_id, fingerprint, vectors.counts, recipe
            )
            writer.annotate(record.to_metadata())


@dataclass(frozen=True)
class ServedEmbeddings(EmbeddingsFile):
    """One day of vectors of one space, read at stated dimensions from a file that may hold more.

    The file is asked when it is opened, so that one that replaces it meanwhile serves as well.
    """

    def verify(self, parquet: pq.ParquetFile) -> None:
        """Refuse a file of another space, or with shorter vectors. Raises DataError."""
        found = self._parse(self.metadata_of(parquet)).dimensions
        self._at(max(found, self.dimensions)).verify(parquet)

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows in order, their vectors as the view."""
        for batch in super().iter_batches(columns, batch_rows):
            yield with_view(batch, self.dimensions)


@dataclass
class VectorsWriter:
    """Takes batches of ``embeddings``; ``counts`` may be filled in until the end."""

    _writer: PartitionWriter
    counts: dict[str, int]

    @property
    def rows(self) -> int:
        """Vectors written so far."""
        return self._writer.rows

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows (see ``columns.embeddings_batch``). Raises DataError."""
        self._writer.write(batch)


class Datasets:
    """Every dataset in one place (a folder, or a ``Storage``), by asset and day (``YYYY-MM-DD``).

    All methods raise DataError when the day is not one.
    """

    def __init__(self, place: Path | Storage) -> None:
        self.storage = LocalStorage(place) if isinstance(place, Path) else place

    @property
    def root(self) -> Path:
        """The folder, when the place is one of this machine."""
        return Path(self.storage.location())

    def raw_chunks(self, day: str) -> PartitionFile:
        """All chunks of a day."""
        return self._file("raw_chunks", day, RAW_CHUNKS)

    def rejected_rows(self, day: str) -> PartitionFile:
        """Rows kept aside on the way to ``raw_chunks``; no file when there were none."""
        return self._file("rejected_rows", day, REJECTED_ROWS)

    def deduped_chunks(self, day: str) -> PartitionFile:
        """The representatives of a day."""
        return self._file("deduped_chunks", day, RAW_CHUNKS)

    def duplicate_chunks(self, day: str) -> PartitionFile:
        """The chunks of a day that are not representatives, and whose text stands for them."""
        return self._file("duplicate_chunks", day, DUPLICATE_CHUNKS)

    def signatures(self, family: str, day: str, schema: pa.Schema) -> PartitionFile:
        """What is remembered of a day's chunks to find their copies; made anew when missing.

        ``family`` names what the signatures depend on: those of two families do not mix.
        """
        name = f"signatures/{family}/{day}.parquet"
        return PartitionFile("signatures", _day(day), self.storage, name, schema)

    def cost_summary(self, day: str) -> PartitionFile:
        """What a day cost."""
        return self._file("cost_summary", day, COST_SUMMARY)

    def embeddings(self, space: Space, day: str, dimensions: int | None = None) -> EmbeddingsFile:
        """The vectors of a day's representatives; ``dimensions`` None means native."""
        length = space.native_dimensions if dimensions is None else dimensions
        return EmbeddingsFile(
            asset="embeddings",
            day=_day(day),
            storage=self.storage,
            name=f"embeddings/{space.slug}/{day}.parquet",
            schema=embeddings_schema(length),
            space=space,
            dimensions=length,
        )

    def served_embeddings(
        self, space: Space, day: str, dimensions: int | None = None
    ) -> ServedEmbeddings:
        """The vectors of a day for readers, who may be handed a view of longer ones."""
        strict = self.embeddings(space, day, dimensions)
        return ServedEmbeddings(**vars(strict))

    def stored_embeddings(self, space: Space, day: str) -> EmbeddingsFile:
        """The vectors of a day at whatever dimensions its file says. Raises DataError."""
        return self.embeddings(space, day).stored()

    def derived_chunks(self, space: Space, day: str) -> PartitionFile:
        """Chunks of a day whose vector is not of exactly their text; no file when none is."""
        name = f"derived_chunks/{space.slug}/{day}.parquet"
        return PartitionFile("embeddings", _day(day), self.storage, name, DERIVED_CHUNKS)

    def stand_ins(self, space: Space, day: str) -> EmbeddingsFile:
        """Vectors of ``space`` that stand in for real ones of a day; no file when none do."""
        name = f"{STAND_INS}/{space.slug}/{_day(day)}.parquet"
        return replace(self.embeddings(space, day), asset=STAND_INS, name=name)

    def stand_in_files(self, day: str) -> list[PartitionFile]:
        """Every file of stand-ins of a day, of whatever space."""
        schema = embeddings_schema(1)
        return [
            PartitionFile(STAND_INS, day, self.storage, name, schema)
            for folder in self.storage.folders(STAND_INS)
            if self.storage.exists(name := f"{STAND_INS}/{folder}/{_day(day)}.parquet")
        ]

    def embedded_days(self, space: Space) -> list[str]:
        """The days that have vectors in ``space``, oldest first."""
        return self.days(f"embeddings/{space.slug}")

    def days(self, asset: str) -> list[str]:
        """The days that ``asset`` has a file of its own for, oldest first."""
        with _listing(asset):
            found = self.storage.files(asset)
        stems = (file.name.removesuffix(".parquet") for file in found if _is_parquet(file))
        return [stem for stem in stems if _is_day(stem)]

    def embeddings_files(self) -> list[tuple[str, str, int]]:
        """Folder, day and bytes of every file of vectors, of whatever space. Raises DataError."""
        with _listing("embeddings"):
            return [
                (folder, file.name.removesuffix(".parquet"), file.size)
                for folder in self.storage.folders("embeddings")
                for file in self.storage.files(f"embeddings/{folder}")
                if _is_parquet(file)
            ]

    def found_embeddings(self, folder: str, day: str) -> EmbeddingsFile:
        """A file of vectors in a space's folder, as what it says it is. Raises DataError."""
        name = f"embeddings/{folder}/{_day(day)}.parquet"
        metadata = PartitionFile(
            "embeddings", day, self.storage, name, embeddings_schema(1)
        ).metadata()
        try:
            found = Provenance.from_metadata(metadata)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{self.storage.location(name)} does not say what made it") from error
        return self.embeddings(found.space, day, found.dimensions)

    def spaces(self) -> list[Space]:
        """Every space that has vectors here, by the word of its newest file, in order.

        A folder whose file says nothing readable is left out.
        """
        found = set()
        with _listing("embeddings"):
            folders = self.storage.folders("embeddings")
        for folder in folders:
            days = self.days(f"embeddings/{folder}")
            space = self._space_in(folder, days[-1]) if days else None
            if space is not None:
                found.add(space)
        return sorted(found)

    def _space_in(self, slug: str, day: str) -> Space | None:
        name = f"embeddings/{slug}/{day}.parquet"
        file = PartitionFile("embeddings", day, self.storage, name, embeddings_schema(1))
        try:
            return Provenance.from_metadata(file.metadata()).space
        except (DataError, KeyError, ValueError, TypeError):
            return None

    def _file(self, asset: str, day: str, schema: pa.Schema) -> PartitionFile:
        return PartitionFile(asset, _day(day), self.storage, f"{asset}/{day}.parquet", schema)


@contextmanager
def _listing(asset: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"the files of {asset} cannot be listed: {error}") from error


def _is_parquet(file: StoredFile) -> bool:
    return file.name.endswith(".parquet") and not file.name.startswith(".")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _day(text: str) -> str:
    """``text`` if it is a day as partitions write it; it becomes part of a path."""
    if not _is_day(text):
        raise DataError(f"{text!r} is not a day (YYYY-MM-DD)")
    return text
