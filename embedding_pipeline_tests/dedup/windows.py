"""Days of chunks as windows of signatures, and who represents whom by plain comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from embedding_pipeline.dedup.clusters import Rows
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.grouping import Groups, Method, Window, group
from embedding_pipeline.dedup.keys import normalized
from embedding_pipeline.dedup.signing import sign, signature_schema
from embedding_pipeline_tests.vectors.building import Chunk, chunk_batch

Days = Mapping[str, Sequence[Chunk]]


@dataclass(frozen=True)
class Link:
    """What a chunk is: a copy of another, or itself."""

    representative: tuple[str, str]
    method: str
    similarity: float


def window_of(days: Days, config: DedupConfig, batch_rows: int = 3) -> Window:
    tables = [
        pa.Table.from_batches(
            [
                sign(chunk_batch(chunks[start : start + batch_rows]), config)
                for start in range(0, len(chunks), batch_rows)
            ],
            signature_schema(config),
        )
        for chunks in days.values()
    ]
    return Window(list(days), tables)


def groups_of(days: Days, config: DedupConfig, batch_rows: int = 3) -> Groups:
    """The verdict over the last of ``days``."""
    texts = [chunk.text for chunks in days.values() for chunk in chunks]

    def texts_of(rows: Rows) -> list[list[str]]:
        assert (rows[1:] > rows[:-1]).all(), "asked for in the order of the files"
        return [[texts[row]] for row in rows]

    return group(window_of(days, config, batch_rows), texts_of, config)


def verdict(days: Days, config: DedupConfig, batch_rows: int = 3) -> dict[str, Link]:
    """For each chunk of the last day what it is."""
    groups = groups_of(days, config, batch_rows)
    names = [(day, chunk.chunk_id) for day, chunks in days.items() for chunk in chunks]
    return {
        names[groups.first + place][1]: Link(
            names[row],
            "itself" if groups.kept[place] else Method(groups.method[place]).word,
            round(float(groups.similarity[place]), 6),
        )
        for place, row in enumerate(groups.representative.tolist())
    }


def model(days: Days, config: DedupConfig) -> dict[str, Link]:
    """The same by comparing every chunk with every representative before it."""
    ordered = sorted(
        ((day, chunk) for day, chunks in days.items() for chunk in chunks),
        key=lambda one: (one[0], one[1].chunk_id.encode()),
    )
    texts: dict[tuple[str, str], tuple[str, Chunk]] = {}
    leading: list[tuple[str, Chunk]] = []
    links: dict[tuple[str, str], Link] = {}
    for day, chunk in ordered:
        project = chunk.project if config.within_project else ""
        first = texts.setdefault((project, normalized(chunk.text)), (day, chunk))
        if first == (day, chunk):
            link = _nearest(first, leading, config)
            if link.representative == (day, chunk.chunk_id):
                leading.append(first)
        else:
            link = links[first[0], first[1].chunk_id]
            if link.method == "itself":
                how = "exact" if first[1].text == chunk.text else "normalized"
                link = Link(link.representative, how, 1.0)
        links[day, chunk.chunk_id] = link
    last = list(days)[-1]
    return {name: link for (day, name), link in links.items() if day == last}


def shingles(text: str) -> set[tuple[str, ...]]:
    words = normalized(text).split()
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


def _nearest(
    own: tuple[str, Chunk], leading: Sequence[tuple[str, Chunk]], config: DedupConfig
) -> Link:
    """The first representative that is similar enough, or the chunk itself."""
    mine = shingles(own[1].text)
    for day, chunk in leading if config.near else ():
        its = shingles(chunk.text)
        if config.within_project and chunk.project != own[1].project:
            continue
        similarity = len(mine & its) / len(mine | its) if mine and its else 0.0
        if similarity >= config.threshold:
            return Link((day, chunk.chunk_id), "near", round(similarity, 6))
    return Link((own[0], own[1].chunk_id), "itself", 1.0)
