"""One step of the shared state: what a process says, what happens, what it is told. Pure.

Belongs here: ``exchange``, the only thing that ever happens to the state of a limit.
``acquire.lua`` is the same step for Redis; the two are tested against each other. Does
not belong here: the order of those who wait (``line``), stores, waiting, time.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from embedding_pipeline.limits import buckets
from embedding_pipeline.limits.buckets import Bucket
from embedding_pipeline.limits.line import Line
from embedding_pipeline.limits.protocol import Answer, Ask, News, Terms
from embedding_pipeline.limits.state import Client, State, added, fresh

CLIENT_MS: Final = 60_000
"""After this long without a word, a process is forgotten."""

OUT_MS: Final = 10_000
"""After this long without a word, the provider has seen what a process had under way: a
permit is used at once. What it says remains is then true without that, be the process busy
or dead. Nothing is credited for the dead: what they sent was spent, and what they did not
send is made up for by the refill within the burst."""

LONGEST_BLOCK_MS: Final = 600_000

BACK_MS: Final = 2_000
"""A clock that is further back than this was set back, and is not just a little behind."""


def exchange(state: State | None, terms: Terms, ask: Ask, now: int) -> tuple[State, Answer]:
    """One step: time passes, news is heard, wants are posted, permits are given."""
    state = fresh(terms, now) if state is None else state
    if state.at - now > BACK_MS:
        state = _rewound(state, state.at - now)
    now = max(now, state.at)
    state = _advance(state, terms, ask, now)
    for news in ask.news:
        state = _hear(state, terms, ask, news, now)
    state = _post(state, terms, ask, now)
    return _grant(state, terms, ask, now)


def _rewound(state: State, by: int) -> State:
    """The clock was set back: so is everything that happened, or nobody would go for that long."""
    return replace(
        state,
        at=state.at - by,
        tokens=buckets.rewound(state.tokens, by),
        requests=buckets.rewound(state.requests, by),
        blocked_until=state.blocked_until - by,
        served=tuple(at - by for at in state.served),
        clients={},
    )


def _advance(state: State, terms: Terms, ask: Ask, now: int) -> State:
    elapsed = now - state.at
    tokens = buckets.limited_by(state.tokens, terms.tokens)
    requests = buckets.limited_by(state.requests, terms.requests)
    tokens = buckets.take(tokens, -ask.returned[0])
    requests = buckets.take(requests, -ask.returned[1])
    return replace(
        state,
        at=now,
        tokens=buckets.refill(tokens, elapsed, terms.span),
        requests=buckets.refill(requests, elapsed, terms.span),
    )


def _hear(state: State, terms: Terms, ask: Ask, news: News, now: int) -> State:
    others = [
        client.out
        for name, client in state.clients.items()
        if name != ask.client and now - client.seen < OUT_MS
    ]
    out_tokens = ask.out[0] + sum(out[0] for out in others)
    out_requests = ask.out[1] + sum(out[1] for out in others)
    refusal = news.kind != "ok"
    cost = (1, 1) if refusal else (news.tokens, 1)
    tokens = buckets.learn(
        state.tokens, news.limits[0], news.remaining[0], out_tokens, cost[0], terms.ramp
    )
    requests = buckets.learn(
        state.requests, news.limits[1], news.remaining[1], out_requests, cost[1], terms.ramp
    )
    if not refusal:
        tokens = buckets.acknowledged(tokens, now)
        requests = buckets.acknowledged(requests, now)
        return replace(state, tokens=tokens, requests=requests)
    if news.resource != "requests":
        tokens = _refused(state.tokens, tokens, news.tokens, news, now, news.sustained[0])
    if news.resource != "tokens":
        requests = _refused(state.requests, requests, 1, news, now, news.sustained[1])
    wait = min(news.retry_after, LONGEST_BLOCK_MS)
    ramp = news.kind == "ramp"
    return replace(
        state,
        tokens=tokens,
        requests=requests,
        blocked_until=max(state.blocked_until, now + wait),
        refusals=(state.refusals[0] + (not ramp), state.refusals[1] + ramp),
        totals=added(state.totals, news.project, news.priority, (0, 0, 0, 1)),
    )


def _refused(
    before: Bucket, told: Bucket, cost: int, news: News, now: int, sustained: int
) -> Bucket:
    if told.rate < before.rate:
        return buckets.lowered(told, before.rate, now)
    if news.kind == "ramp":
        return buckets.refused(told, cost, news.granted_at, now, buckets.EASE_RAMP)
    return buckets.refused(told, cost, news.granted_at, now, buckets.EASE, sustained)


def _post(state: State, terms: Terms, ask: Ask, now: int) -> State:
    """Note what the process wants, forget those that fell silent, let the rates grow."""
    wants = tuple((w.project, w.weight, w.priority, now - w.age, w.tokens) for w in ask.wants)
    clients = {
        name: client for name, client in state.clients.items() if now - client.seen < CLIENT_MS
    }
    clients[ask.client] = Client(now, ask.out, wants)
    if not wants and ask.out == (0, 0):
        del clients[ask.client]
    hungry = len(wants) > 0
    return replace(
        state,
        clients=clients,
        tokens=buckets.refill(buckets.grow(state.tokens, now, hungry), 0, terms.span),
        requests=buckets.refill(buckets.grow(state.requests, now, hungry), 0, terms.span),
    )


def _grant(state: State, terms: Terms, ask: Ask, now: int) -> tuple[State, Answer]:
    line = Line(state, terms, now)
    blocked = max(state.blocked_until - now, 0)
    granted: list[int] = []
    ahead: dict[str, tuple[int, int]] = {}
    retry_after = 0
    while len(granted) < len(ask.wants):
        place, rank = line.next()
        if place.client != ask.client:
            line.set_aside(place)
            count, tokens = ahead.get(place.project, (0, 0))
            ahead[place.project] = (count + 1, tokens + place.tokens)
            continue
        retry_after = max(line.wait(place, rank), blocked)
        if retry_after > 0:
            break
        line.give(place)
        granted.append(place.index)
    answer = Answer(
        now,
        tuple(sorted(granted)),
        retry_after,
        tuple((name, *count) for name, count in ahead.items()),
        (line.tokens.rate, line.requests.rate),
        (line.tokens.bounded, line.requests.bounded),
    )
    return _after(state, ask, line, granted), answer


def _after(state: State, ask: Ask, line: Line, granted: Sequence[int]) -> State:
    clients = dict(state.clients)
    if granted:
        mine = clients[ask.client]
        given = [mine.wants[i][4] for i in granted]
        wants = tuple(want for i, want in enumerate(mine.wants) if i not in granted)
        out = (mine.out[0] + sum(given), mine.out[1] + len(given))
        clients[ask.client] = Client(mine.seen, out, wants)
    return replace(
        state,
        clients=clients,
        tokens=line.tokens,
        requests=line.requests,
        tags=line.rebased(),
        served=tuple(line.served),
        totals=line.totals,
    )
