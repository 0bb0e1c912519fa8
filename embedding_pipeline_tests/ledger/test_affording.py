"""What fits is within every budget; nothing that fits is left out for long."""

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.ledger.affording import Ask, Room, afford, covers

ASKS = st.lists(
    st.builds(Ask, st.sampled_from("ab"), st.sampled_from(["", "u"]), st.integers(0, 50)),
    max_size=20,
)
SCOPES = ("all", "project:a", "project:b", "user:u", "user:nobody")


@st.composite
def rooms(draw: st.DrawFn) -> list[Room]:
    chosen = draw(st.lists(st.sampled_from(SCOPES), unique=True))
    unspent = [draw(st.integers(0, 300)) for _ in chosen]
    return [
        Room(scope, draw(st.integers(0, most)), most)
        for scope, most in zip(chosen, unspent, strict=True)
    ]


@given(asks=ASKS, rooms=rooms())
def test_each_ask_is_judged_once_and_what_fits_is_within_every_budget(
    asks: list[Ask], rooms: list[Room]
) -> None:
    verdict = afford(asks, rooms)
    judged = [*verdict.fits, *verdict.waits, *verdict.never]
    assert sorted(judged) == list(range(len(asks)))
    for room in rooms:
        taken = sum(asks[i].nano_usd for i in verdict.fits if _concerns(room, asks[i]))
        assert taken <= room.free_nano
    for position in [*verdict.waits, *verdict.never]:
        assert any(_concerns(room, asks[position]) for room in rooms)


@given(asks=ASKS, rooms=rooms())
def test_only_what_could_never_be_paid_for_is_refused(asks: list[Ask], rooms: list[Room]) -> None:
    verdict = afford(asks, rooms)
    for position, by in verdict.never.items():
        assert _concerns(rooms[by], asks[position])
        assert asks[position].nano_usd > rooms[by].unspent_nano
    for position in verdict.waits:
        mine = [room for room in rooms if _concerns(room, asks[position])]
        assert all(asks[position].nano_usd <= room.unspent_nano for room in mine)


def test_a_large_one_does_not_keep_small_ones_from_the_room() -> None:
    asks = [Ask("a", "", 5), Ask("a", "", 90), Ask("a", "", 5), Ask("b", "", 90)]
    verdict = afford(asks, [Room("project:a", 10, 50)])
    assert verdict.fits == [0, 2, 3]
    assert verdict.never == {1: 0}


def test_scopes() -> None:
    assert covers("all", "x", "")
    assert covers("project:a:b", "a:b", "u")
    assert not covers("project:a", "b", "a")
    assert covers("user:u", "a", "u")
    assert not covers("user:u", "u", "")


def _concerns(room: Room, ask: Ask) -> bool:
    return room.concerns(ask.project, ask.user)
