"""A name follows its latest text, in its own space, and is never the key itself."""

import pytest

from embedding_pipeline.cache import names
from embedding_pipeline.records import digest_of
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

OLD, NEW = digest_of("old"), digest_of("new")


async def test_a_name_points_at_the_last_text_it_was_given_for(store: Store) -> None:
    assert await store.read(lambda c: names.find(c, 1, "title")) is None
    await store.write(lambda c: names.give(c, 1, "title", OLD))
    assert await store.read(lambda c: names.find(c, 1, "title")) == OLD
    await store.write(lambda c: names.give(c, 1, "title", NEW))
    assert await store.read(lambda c: names.find(c, 1, "title")) == NEW


async def test_the_same_name_in_another_space_is_another_name(store: Store) -> None:
    await store.write(lambda c: names.give(c, 1, "title", OLD))
    await store.write(lambda c: names.give(c, 2, "title", NEW))
    assert await store.read(lambda c: names.find(c, 1, "title")) == OLD
    assert await store.read(lambda c: names.find(c, 2, "title")) == NEW
