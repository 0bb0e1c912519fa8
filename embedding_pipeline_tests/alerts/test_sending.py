"""Each alert is taken once by the other side, whatever happens on the way there."""

import logging
from functools import partial

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from embedding_pipeline.alerts.outbox import HOLD_MS, file_alert, take_due, waiting
from embedding_pipeline.alerts.sending import Delivery, deliver
from embedding_pipeline.alerts.webhook import Webhook
from embedding_pipeline.errors import AlertNotSent, ConfigurationError
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.alerts.receiver import Receiver, address_of, bound, receiving
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.stores import another

pytestmark = pytest.mark.anyio


def hook(receiver: Receiver, seconds: float = 300.0) -> Webhook:
    return Webhook(SecretStr(receiver.url), seconds)


async def filed(store: Store, *keys: str, clock: FakeClock) -> None:
    for key in keys:
        now = int(clock.now() * 1000)
        await store.write(partial(file_alert, key=key, text=f"about {key}", now_ms=now))
        clock.advance(0.001)


async def test_alerts_arrive_in_order_and_once(store: Store) -> None:
    clock = FakeClock()
    await filed(store, "a", "b", "a", "c", "d", "e", "f", clock=clock)
    async with receiving() as receiver:
        assert await deliver(store, hook(receiver), clock) == Delivery(6)
        assert receiver.texts == [f"about {key}" for key in "abcdef"]
        assert await deliver(store, hook(receiver), clock) == Delivery(0)
        await filed(store, "a", clock=clock)  # its period is not over
        with another(store) as later:  # another process, after a restart
            assert await deliver(later, hook(receiver), clock) == Delivery(0)
    assert await store.read(waiting) == 0


@pytest.mark.parametrize("status", [500, 404, 302, 307, 429])
async def test_only_a_2xx_is_delivered(store: Store, status: int) -> None:
    clock = FakeClock()
    await filed(store, "a", "b", clock=clock)
    async with receiving() as elsewhere, receiving() as receiver:
        receiver.status, receiver.headers = status, {"Location": elsewhere.url}
        found = await deliver(store, hook(receiver), clock)
        assert found == Delivery(0, f"the webhook answered with {status}; tried again later")
        assert (receiver.asked, elsewhere.asked) == (1, 0)
        assert await deliver(store, hook(receiver), clock) == Delivery(0), "not due yet"
        receiver.status = 200
        clock.advance(31)
        assert await deliver(store, hook(receiver), clock) == Delivery(2)
    assert receiver.texts == ["about a", "about b"]


async def test_a_receiver_that_is_down_is_tried_again_ever_more_rarely(store: Store) -> None:
    clock = FakeClock()
    await filed(store, "a", clock=clock)
    with bound() as place:
        webhook, tried = Webhook(SecretStr(address_of(place)), 300), 0
        for _ in range(120):  # ten minutes
            tried += "cannot be reached" in (await deliver(store, webhook, clock)).problem
            clock.advance(5)
        assert 3 <= tried <= 6
        async with receiving(place) as back:
            clock.advance(3600)
            assert await deliver(store, webhook, clock) == Delivery(1)
    assert back.texts == ["about a"]


async def test_a_slow_receiver_is_given_up(store: Store) -> None:
    clock = FakeClock()
    await filed(store, "a", clock=clock)
    async with receiving() as receiver:
        receiver.delay = 30.0
        found = await deliver(store, hook(receiver, seconds=0.1), clock)
        assert "cannot be reached" in found.problem
    assert await store.read(waiting) == 1


async def test_of_two_senders_one_takes_an_alert(store: Store) -> None:
    clock = FakeClock()
    await filed(store, "a", clock=clock)
    now = int(clock.now() * 1000)
    with another(store) as other:
        first = await store.write(lambda c: take_due(c, now, 5))
        second = await other.write(lambda c: take_due(c, now, 5))
        later = await other.write(lambda c: take_due(c, now + HOLD_MS, 5))
    assert [alert.key for alert in first] == ["a"]
    assert second == []
    assert [alert.attempts for alert in later] == [2], "the first one died over it"


async def test_the_address_is_told_to_nobody(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiving() as receiver:
        webhook = hook(receiver)
        await webhook.send("fine")
    with pytest.raises(AlertNotSent) as caught:
        await webhook.send("down")
    assert caught.value.__cause__ is None
    for said in (caplog.text, str(caught.value), repr(webhook), repr(vars(webhook))):
        assert "geheim" not in said


@pytest.mark.parametrize("url", ["", "slack", "ftp://host/x", "https://"])
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http") as caught:
        Webhook(SecretStr(url))
    assert not url or url not in str(caught.value)


async def test_what_was_sent_is_kept_with_its_time(store: Store) -> None:
    clock = FakeClock()
    await filed(store, "a", clock=clock)
    async with receiving() as receiver:
        await deliver(store, hook(receiver), clock)
    rows = await store.read(lambda c: c.execute(select(schema.alerts)).all())
    assert [row.sent_at for row in rows] == [int(clock.now() * 1000)]
