"""The nearest chunks, against sorting everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.search import Hit, search
from embedding_pipeline_tests.vectors.building import (
    DAY,
    NEXT,
    SPACE,
    Chunk,
    vector_of,
    vectors_of,
    write_day,
    write_embeddings,
    write_raw,
)

WORDS = st.sampled_from(["red", "green", "blue", "black", "white", "grey"])


def write_days(datasets: Datasets, days: dict[str, list[Chunk]]) -> None:
    for day, chunks in days.items():
        write_day(datasets, day, chunks)


def nearest(days: dict[str, list[Chunk]], query: Vectors, k: int) -> list[tuple[str, str]]:
    """Day and id of the ``k`` nearest, by the letter of the contract."""
    scored = sorted(
        (-float(vector_of(chunk.text).astype(np.float64) @ query), day, chunk.chunk_id, chunk)
        for day, chunks in days.items()
        for chunk in chunks
    )
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for _, day, name, chunk in scored:
        first.setdefault((chunk.project, chunk.text), (day, name))
    return list(first.values())[:k]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(WORDS, st.sampled_from(["p", "q"])), max_size=12),
    st.lists(st.tuples(WORDS, st.sampled_from(["p", "q"])), max_size=12),
    WORDS,
    st.integers(1, 8),
)
def test_it_is_the_head_of_the_sorted_list(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[str, str]],
    second: list[tuple[str, str]],
    query: str,
    k: int,
) -> None:
    datasets = Datasets(tmp_path_factory.mktemp("data"))
    days = {
        day: [Chunk(f"{n:02d}", text, project) for n, (text, project) in enumerate(texts)]
        for day, texts in ((DAY, first), (NEXT, second))
    }
    write_days(datasets, days)
    hits = search(datasets, SPACE, vector_of(query), k)
    found = [(hit.date, hit.chunk_id) for hit in hits]
    assert found == nearest(days, vector_of(query).astype(np.float64), k)
    texts = {(day, chunk.chunk_id): chunk.text for day in days for chunk in days[day]}
    assert [hit.text for hit in hits] == [texts[place] for place in found]


def test_a_hit_says_everything_about_its_chunk(datasets: Datasets) -> None:
    chunk = Chunk("a", "red", project="q")
    write_day(datasets, DAY, [chunk, Chunk("b", "green")])
    hit = search(datasets, SPACE, vector_of("red"), 1)[0]
    assert hit.score == pytest.approx(1, abs=1e-6)
    assert hit == Hit(
        score=hit.score,
        chunk_id="a",
        document_id="doc-a",
        project="q",
        date=DAY,
        content_hash=hit.content_hash,
        text="red",
    )


def test_many_batches_and_many_hits_agree_with_one_matrix_product(datasets: Datasets) -> None:
    chunks = [Chunk(f"c{n:05d}", f"text {n}") for n in range(4000)]
    write_day(datasets, DAY, chunks)
    query = vector_of("text 1234")
    scores = vectors_of([chunk.text for chunk in chunks]) @ query
    best = [chunks[n].chunk_id for n in np.argsort(-scores)[:25]]
    assert [hit.chunk_id for hit in search(datasets, SPACE, query, 25)] == best


def test_equal_texts_tie_whatever_batch_they_are_in(datasets: Datasets) -> None:
    others = [Chunk(f"o{n:04d}", f"text {n}") for n in range(1500)]
    for project, place in (("p", 0), ("q", 777), ("r", 1500)):
        others.insert(place, Chunk(f"same-{project}", "the same", project))
    write_day(datasets, DAY, others)
    hits = search(datasets, SPACE, vector_of("the same"), 3)
    assert [hit.chunk_id for hit in hits] == ["same-p", "same-q", "same-r"]
    assert len({hit.score for hit in hits}) == 1


def test_the_length_of_the_query_does_not_matter(datasets: Datasets) -> None:
    write_day(datasets, DAY, [Chunk("a", "red"), Chunk("b", "green")])
    longer = search(datasets, SPACE, vector_of("red") * 4, 2)
    assert longer == search(datasets, SPACE, vector_of("red")[None, :], 2)


def test_only_the_days_asked_for(datasets: Datasets) -> None:
    write_days(datasets, {DAY: [Chunk("a", "red")], NEXT: [Chunk("b", "red")]})
    assert [hit.date for hit in search(datasets, SPACE, vector_of("red"), 5)] == [DAY]
    assert [h.date for h in search(datasets, SPACE, vector_of("red"), 5, days=[NEXT])] == [NEXT]


def test_nothing_to_search_is_no_hit(datasets: Datasets) -> None:
    assert search(datasets, SPACE, vector_of("red")) == []


def test_smaller_dimensions(datasets: Datasets) -> None:
    chunks = [Chunk("a", "red"), Chunk("b", "green")]
    write_raw(datasets, DAY, chunks)
    write_embeddings(datasets, DAY, chunks, vectors=vectors_of(["red", "green"], 4))
    hits = search(datasets, SPACE, vector_of("green", 4), 1, dimensions=4)
    assert [hit.chunk_id for hit in hits] == ["b"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (np.ones(7, np.float32), "has 7 components, the vectors 8"),
        (np.zeros(8, np.float32), "zero or not finite"),
        (np.full(8, np.nan, np.float32), "zero or not finite"),
    ],
)
def test_a_query_without_meaning_is_refused(datasets: Datasets, query: Vectors, words: str) -> None:
    with pytest.raises(DataError, match=words):
        search(datasets, SPACE, query)


def test_at_least_one_hit_is_wanted(datasets: Datasets) -> None:
    with pytest.raises(DataError, match="k is 0"):
        search(datasets, SPACE, vector_of("red"), 0)


def test_a_vector_without_its_chunk_is_an_error_in_words(datasets: Datasets) -> None:
    write_day(datasets, DAY, [Chunk("a", "red")])
    write_raw(datasets, DAY, [])
    with pytest.raises(DataError, match="'a' has a vector but is not in"):
        search(datasets, SPACE, vector_of("red"))
