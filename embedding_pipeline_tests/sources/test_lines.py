"""Bytes into lines: every cut, every end, and lines too long to hold."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.sources.lines import BadFile, Line, read_lines, without_mark

_BYTES = st.text("ab\n\r ", max_size=60).map(str.encode)


def _blocks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return iter([data[start:end] for start, end in pairwise(edges)])


@given(data=_BYTES, cuts=st.lists(st.integers(0, 60)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    lines = list(read_lines(_blocks(data, cuts)))
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.data for line in lines] == [piece.removesuffix(b"\r") for piece in expected]
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.ended for line in lines[:-1])
    if lines:
        assert lines[-1].ended == data.endswith(b"\n")


@given(
    lengths=st.lists(st.integers(0, 40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=20),
    bound=st.integers(1, 30),
)
def test_a_line_over_the_bound_is_marked_and_the_others_are_whole(
    lengths: list[int], cuts: list[int], bound: int
) -> None:
    data = b"".join(b"x" * length + b"\n" for length in lengths)
    lines = list(read_lines(_blocks(data, cuts), bound))
    assert [line.oversized for line in lines] == [length > bound for length in lengths]
    for line, length in zip(lines, lengths, strict=True):
        assert line.data == b"x" * length


def test_of_an_oversized_line_only_the_beginning_is_held() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"y" * 2**16
        yield b"\nshort"

    long, short = read_lines(endless(), bound=2**17)
    assert long.oversized
    assert 0 < len(long.data) < 2**13
    assert short == Line(2, b"short", ended=False)


def test_lines_before_a_failure_are_delivered() -> None:
    def failing() -> Iterator[bytes]:
        yield b"one\ntwo\nthr"
        raise BadFile("damaged_file")

    lines = read_lines(failing())
    assert [next(lines).data, next(lines).data] == [b"one", b"two"]
    with pytest.raises(BadFile):
        next(lines)


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_a_utf8_mark_is_removed_however_it_arrives(cut: int) -> None:
    data = b"\xef\xbb\xbfabc"
    assert b"".join(without_mark(iter([data[:cut], data[cut:]]))) == b"abc"


@pytest.mark.parametrize("data", [b"", b"\xef", b"ab", b"abc\xef\xbb\xbf"])
def test_without_a_mark_nothing_changes(data: bytes) -> None:
    assert b"".join(without_mark(iter([data]))) == data


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_refused_as_a_whole(encoding: str) -> None:
    with pytest.raises(BadFile) as caught:
        list(without_mark(iter(["{}".encode(encoding)])))
    assert caught.value.reason == "not_utf8"
