"""What is read back is what was written, bit by bit, under its own key, or nothing."""

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedding_pipeline.cache.codec import (
    OVERHEAD,
    Value,
    decode_into,
    encode,
    locate,
    payload_of,
    refer,
)
from embedding_pipeline.records import Digest, Space, Vectors, digest_of

SPACE = Space("openai", "model", "", 8)
OTHERS = (
    Space("openai", "model", "", 7),
    Space("openai", "model", "2", 8),
    Space("openai", "model2", "", 8),
    Space("azure", "model", "", 8),
)

matrices = arrays.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(8)))


def keys(count: int) -> list[Digest]:
    return [digest_of(str(n)) for n in range(count)]


def decode(
    entries: Sequence[tuple[Digest, Value]], space: Space = SPACE, width: int = 8
) -> tuple[Vectors, list[int]]:
    """All entries in order, and which are damaged."""
    out = np.full((len(entries), width), 7, np.float32)
    digests, values = [digest for digest, _ in entries], [value for _, value in entries]
    return out, decode_into(out, range(len(entries)), space, digests, values)


@given(st.integers(0, 300))
def test_the_checksum_is_the_one_of_zlib_whoever_makes_it(width: int) -> None:
    """Entries written by one version, or on one machine, are read by all others."""
    space, digest = Space("openai", "model", "", width), digest_of("text")
    (entry,) = encode(space, [digest], np.arange(width, dtype=np.float32)[None, :])
    check = 0
    for part in (entry[:4], str(space).encode(), digest, entry[OVERHEAD:]):
        check = zlib.crc32(part, check)
    assert int.from_bytes(entry[4:8], "little") == check


@given(matrices)
def test_float32_comes_back_bit_by_bit(vectors: Vectors) -> None:
    digests = keys(len(vectors))
    out, damaged = decode(list(zip(digests, encode(SPACE, digests, vectors), strict=True)))
    assert not damaged
    assert out.tobytes() == vectors.tobytes()


@given(matrices.map(lambda rows: rows[:, ::-1]))
def test_the_layout_in_memory_does_not_matter(vectors: Vectors) -> None:
    digests = keys(len(vectors))
    assert encode(SPACE, digests, vectors) == encode(SPACE, digests, vectors.copy())


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-1, 1, width=32)))
def test_float16_is_off_by_half_a_unit_in_the_last_place_at_most(vectors: Vectors) -> None:
    digests = keys(3)
    entries = encode(SPACE, digests, vectors, "float16")
    assert {len(entry) for entry in entries} == {OVERHEAD + 16}
    out, damaged = decode(list(zip(digests, entries, strict=True)))
    assert not damaged
    bound = np.maximum(np.abs(vectors) * 2.0**-11, 2.0**-25)
    assert (np.abs(out - vectors) <= bound).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_single_bit_can_be_flipped_unnoticed(dtype: str) -> None:
    vectors = np.random.default_rng(5).normal(size=(1, 8)).astype(np.float32)
    (digest,) = keys(1)
    (entry,) = encode(SPACE, [digest], vectors, dtype)
    for bit in range(8 * len(entry)):
        flipped = bytearray(entry)
        flipped[bit // 8] ^= 1 << bit % 8
        out, damaged = decode([(digest, bytes(flipped))])
        assert damaged == [0], f"bit {bit}"
        assert (out == 7).all(), "nothing is written of a damaged entry"


@settings(max_examples=200)
@given(st.data())
def test_no_stretch_of_bytes_can_be_overwritten_cut_or_added_unnoticed(data: st.DataObject) -> None:
    vectors = np.random.default_rng(6).normal(size=(1, 8)).astype(np.float32)
    (digest,) = keys(1)
    (entry,) = encode(SPACE, [digest], vectors)
    start = data.draw(st.integers(0, len(entry)))
    stop = data.draw(st.integers(start, len(entry)))
    other = bytes(entry[:start]) + data.draw(st.binary(max_size=12)) + bytes(entry[stop:])
    _, damaged = decode([(digest, other)])
    assert damaged == ([] if other == entry else [0])


@given(matrices.filter(lambda rows: len(rows) > 1))
def test_a_value_does_not_decode_under_another_key(vectors: Vectors) -> None:
    digests = keys(len(vectors))
    values = encode(SPACE, digests, vectors)
    shifted = [*values[1:], values[0]]
    _, damaged = decode(list(zip(digests, shifted, strict=True)))
    assert damaged == list(range(len(vectors)))


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_value_does_not_decode_in_another_space(other: Space) -> None:
    digests = keys(1)
    (value,) = encode(SPACE, digests, np.ones((1, 8), np.float32))
    _, damaged = decode([(digests[0], value)], other, other.native_dimensions)
    assert damaged == [0]


def test_a_damaged_entry_takes_no_other_with_it() -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(3, 8)
    digests = keys(3)
    first, _, last = encode(SPACE, digests, vectors)
    out, damaged = decode(list(zip(digests, [first, b"", last], strict=True)))
    assert damaged == [1]
    assert (out[[0, 2]] == vectors[[0, 2]]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_references_say_where_each_row_begins(dtype: str) -> None:
    rows = payload_of(np.eye(3, SPACE.native_dimensions, dtype=np.float32), dtype)
    digests = keys(3)
    (found,) = locate(refer(SPACE, digests, rows, 4096), SPACE.native_dimensions)
    assert found.offsets.tolist() == [4096 + number * rows.strides[0] for number in range(3)]
    some = np.array([2, 0], np.intp)
    assert found.right(some, rows[some], SPACE, [digests[2], digests[0]]).all()
    assert not found.right(some, rows[some], SPACE, digests[:2]).any()
