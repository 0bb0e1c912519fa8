"""Signatures of chunks as rows: all that is needed of a chunk to find its copies.

Belongs here: the schema, what a signature depends on, and making signatures of a batch.
Does not belong here: where signatures are kept (``pipeline``), or comparing them
(``grouping``).
"""

import hashlib
import json
import unicodedata
from typing import Final

import numpy as np
import pyarrow as pa

from embedding_pipeline.dedup.config import HASHES, SHINGLE_WORDS, Banding, DedupConfig
from embedding_pipeline.dedup.keys import DIGEST_BYTES, digest, normalized, salt
from embedding_pipeline.dedup.minhash import VERSION, band_keys, minima
from embedding_pipeline.dedup.shingles import Shingles, shingles_of
from embedding_pipeline.dedup.words import Hashes, Offsets

COLUMNS: Final = ("chunk_id", "project", "text", "content_hash")
"""The columns of ``raw_chunks`` that signatures are made from."""

_SLICE: Final = 128
"""Texts whose words are found in one go; the arrays in between stay in the cache."""

_DIGEST: Final = pa.binary(DIGEST_BYTES)


def signature_schema(config: DedupConfig) -> pa.Schema:
    """``chunk_id``, two digests, and a 64-bit key for each band. Never a text.

    ``exact`` is the beginning of the sha256 of the text; ``normalized`` the digest of the
    normalised text, within its project unless the settings join projects.
    """
    names = [f"band_{number:03d}" for number in range(config.banding.bands)]
    return pa.schema(
        [("chunk_id", pa.string()), ("exact", _DIGEST), ("normalized", _DIGEST)]
        + [(name, pa.uint64()) for name in names]
    )


def signature_family(config: DedupConfig) -> str:
    """16 hex characters: signatures of one family can be compared with each other."""
    banding = config.banding
    shaping = {
        "version": VERSION,
        "unicode": unicodedata.unidata_version,
        "shingle_words": SHINGLE_WORDS if banding.bands else 0,
        "hashes": HASHES if banding.bands else 0,
        "bands": banding.bands,
        "rows": banding.rows,
        "within_project": config.within_project,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


def sign(batch: pa.RecordBatch, config: DedupConfig) -> pa.RecordBatch:
    """The signatures of a batch that has ``COLUMNS``, row by row. Pure; fit for threads."""
    columns = {name: batch.column(name).to_pylist() for name in COLUMNS}
    projects = columns["project"] if config.within_project else [""] * batch.num_rows
    texts = [normalized(text) for text in columns["text"]]
    digests = [digest(*pair) for pair in zip(projects, texts, strict=True)]
    exact = [bytes.fromhex(name[: 2 * DIGEST_BYTES]) for name in columns["content_hash"]]
    keys = _keys(texts, projects, config.banding)
    # ids are copied: the batch's own buffer would keep the whole batch alive
    arrays = [
        pa.array(columns["chunk_id"], pa.string()),
        pa.array(exact, _DIGEST),
        pa.array(digests, _DIGEST),
        *(pa.array(np.ascontiguousarray(band)) for band in keys.T),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=signature_schema(config))


def _keys(texts: list[str], projects: list[str], banding: Banding) -> Hashes:
    """Band keys, shape ``(n, bands)``; 0 where a text has no shingles."""
    keys = np.zeros((len(texts), banding.bands), np.uint64)
    if not banding.bands:
        return keys
    salts = np.array([salt(project) for project in projects], np.uint64)
    for start in range(0, len(texts), _SLICE):
        rows = slice(start, start + _SLICE)
        shingles = shingles_of(texts[rows])
        made = band_keys(minima(shingles), banding, salts[rows])
        keys[rows] = np.where(shingles.counts[:, None] > 0, made, np.uint64(0))
    return keys


def shingled(texts: list[str]) -> Shingles:
    """The shingles of texts as they are in ``raw_chunks``."""
    parts = [
        shingles_of([normalized(text) for text in texts[start : start + _SLICE]])
        for start in range(0, len(texts), _SLICE)
    ]
    return joined(parts)


def joined(parts: list[Shingles]) -> Shingles:
    """The shingles of several lists of texts, one list after another."""
    hashes = [np.empty(0, np.uint64), *(part.hashes for part in parts)]
    counts = [np.zeros(1, np.int64), *(part.counts for part in parts)]
    offsets: Offsets = np.cumsum(np.concatenate(counts))
    return Shingles(np.concatenate(hashes), offsets)
