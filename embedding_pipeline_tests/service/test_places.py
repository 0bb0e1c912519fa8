"""Vectors find every row that waits for their key, in whichever batch, and each row once."""

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import digest_of
from embedding_pipeline.service.batch import OpenBatch
from embedding_pipeline.service.places import Places
from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline_tests.service.harness import ACCOUNT, WIDTH, rules


def opened(*texts: str) -> OpenBatch:
    tokens = rules().counter.count(texts)
    work = WorkBatch("d", (), texts, tokens, [ACCOUNT] * len(texts))
    return OpenBatch(work, rules().prepare(texts, tokens, work.accounts), WIDTH)


def waiting(*batches: OpenBatch, at_once: bool = False) -> Places:
    places = Places()
    for batch in batches:
        places.add(batch)
        if not (at_once and places.expect_all(batch)):
            for position, item in enumerate(batch.prepared.items):
                places.expect(item.digest, batch, position)
    return places


texts = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)


@given(st.lists(texts, min_size=1, max_size=4), st.booleans())
def test_every_row_gets_the_vector_of_its_text_and_one_of_a_key_is_first(
    contents: list[list[str]], at_once: bool
) -> None:
    batches = [opened(*content) for content in contents]
    places = waiting(*batches, at_once=at_once)
    keys = [digest_of(text) for text in "abcdefgh"]
    got = dict[tuple[int, int], int]()
    firsts = list[int]()
    for first, batch, positions, indexes in places.land(keys):
        for position, index in zip(positions.tolist(), indexes.tolist(), strict=True):
            assert (batches.index(batch), position) not in got
            got[batches.index(batch), position] = index
            firsts += [index] if first else []
    wanted = {
        (turn, row): "abcdefgh".index(text)
        for turn, content in enumerate(contents)
        for row, text in enumerate(content)
    }
    assert got == wanted
    assert sorted(firsts) == sorted(set(wanted.values()))
    assert list(places.land(keys)) == []


def test_a_batch_that_left_is_passed_over_and_others_still_get_theirs() -> None:
    gone, here = opened("a", "b"), opened("b", "a")
    places = waiting(gone, here)
    places.open.popleft()
    landed = [
        (batch, positions.tolist()) for _, batch, positions, _ in places.land([digest_of("a")])
    ]
    assert landed == [(here, [1])]
    assert places.take(digest_of("b")) == [(here, 0)]
    assert places.take(digest_of("b")) == []


def test_a_batch_waits_at_once_only_where_each_of_its_keys_is_the_first() -> None:
    places, both, twice = Places(), opened("a", "b"), opened("c", "c")
    known, new = opened("b"), opened("d")
    for batch in (both, twice, known, new):
        places.add(batch)
    assert places.expect_all(both)
    assert not places.expect_all(twice)
    assert not places.expect_all(known)
    assert places.expect_all(new)
    keys = [digest_of(text) for text in "abcd"]
    assert [batch for _, batch, _, _ in places.land(keys)] == [both, new]
