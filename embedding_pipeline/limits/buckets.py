"""Token buckets whose rate adapts: the arithmetic, pure, in whole numbers.

Belongs here: one bucket (of requests, or of tokens): refilling, what a cost has to wait
for, and how its rate follows the provider's headers and refusals. Does not belong here:
who gets a permit (``sharing``), stores, waiting.

Whole numbers throughout, because ``buckets.lua`` does the same sums in doubles and must
come to the same result: instants are milliseconds, rates are units a minute, and a level
counts ``UNIT``-ths of a unit, so that a millisecond adds exactly ``rate`` to it.

A level may go below zero: a cost larger than the capacity goes when the bucket is full,
and is paid off before the next one goes.
"""

from dataclasses import dataclass, replace
from typing import Final

UNIT: Final = 60_000

SAFE_TOKENS: Final = 40_000
SAFE_REQUESTS: Final = 60
"""Rates before anything is known: what the smallest account may do."""

MOST_TOKENS: Final = 1_000_000_000
MOST_REQUESTS: Final = 10_000_000
"""Rates that stand for "no limit"; limits beyond them are not believed."""

EASE: Final = 70
"""Per cent of the rate that is left after a 429."""

EASE_RAMP: Final = 50
"""… after being told that the ramp was too steep."""

EASE_BLIND: Final = 30
"""… where no limit is known, and the rate may have run far ahead of it."""

EASE_MEASURED: Final = 90
"""… where what was served since the last refusal says how high the limit is."""

MEASURE_MS: Final = 60_000
"""Between two refusals no further apart than this, the provider's bucket (a minute's worth)
cannot have been full: all that it was refilled with was served."""

ANEW_MS: Final = 30_000
"""A measurement this long is exact enough; the next begins, so that changes are seen."""

AGREE: Final = (94, 110)
"""Where no limit is named, a measurement is believed when it is within so many per cent of the
one before. Until then 429s may have come by chance, and the rate climbs past where they came."""

LEAST: Final = 20
LEAST_SAFE: Final = 4
"""Refusals lower the rate to a twentieth of a known ceiling, or a quarter of the safe rate."""

QUICK: Final = 20
CREEP: Final = 1
QUICK_BLIND: Final = 250
"""Growth after a refusal, in thousandths a second of the ceiling (of the rate, where no limit
is known): quickly to 95 % of the rate that was refused, then slowly, and faster with the
square of the time since, so that a limit that was kept is rarely passed and one that was
restored is soon used."""

RAMP_FROM: Final = 1_000_000
RAMP_MS: Final = 1_800_000
"""Above this rate, growth of 50 % in 15 minutes (1,800 s for 100 %) is what the API allows."""

LONGEST_MS: Final = 60_000
FULL_MS: Final = 1_000_000
"""Longer pauses count as this long, which keeps every product exact in a double."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limited resource.

    Attributes:
        most: the rate that stands for "no limit".
        set: the user's limit a minute, 0 if none.
        limit: the limit a minute that headers last named, 0 if none did.
        rate: what is given out a minute.
        level: what is there, in ``UNIT``-ths.
        failed: the rate at which the provider last refused, 0 if never; ``most`` while nothing
            tells that refusal from one by chance.
        eased_at: when the rate was last lowered for a refusal, 0 if never.
        grown_at: up to when growth is accounted for.
        ramping: 1 while the climb above ``RAMP_FROM`` is bound by the API's rule.
        since: the refusal from which on ``served`` counts, 0 if there was none.
        served: units that went, less those that were refused or given back.
        found: the limit as it was measured at the last refusal, 0 if it was not.
    """

    most: int
    set: int
    limit: int
    rate: int
    level: int
    failed: int = 0
    eased_at: int = 0
    grown_at: int = 0
    ramping: int = 0
    since: int = 0
    served: int = 0
    found: int = 0

    @property
    def known(self) -> bool:
        """Somebody named a limit: the user, or the provider."""
        return self.set > 0 or self.limit > 0

    @property
    def bounded(self) -> bool:
        """There is a limit: somebody named it, or a refusal showed that there is one."""
        return self.known or self.eased_at > 0

    @property
    def ceiling(self) -> int:
        """The highest rate: headers may only lower what the user set."""
        named = [value for value in (self.set, self.limit) if value > 0]
        return min(named, default=self.most)

    @property
    def least(self) -> int:
        """The lowest rate refusals lead to: a storm of them is no reason to stop for good."""
        if self.known:
            return max(self.ceiling // LEAST, 1)
        return self.safe // LEAST_SAFE

    @property
    def safe(self) -> int:
        """The rate before anything is known."""
        return SAFE_TOKENS if self.most == MOST_TOKENS else SAFE_REQUESTS


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a cost may be taken now, and if not, after how many milliseconds."""

    allowed: bool
    retry_after: int = 0


def fresh(most: int, safe: int, limit_set: int, span: int, now: int, ramp: int) -> Bucket:
    """A full bucket of ``span`` ms; at the safe rate where no limit is set."""
    rate = limit_set or safe
    bucket = Bucket(most, limit_set, 0, rate, 0, grown_at=now)
    bucket = _held_to_ramp(bucket, 0, ramp)
    return replace(bucket, level=bucket.rate * span)


def refill(bucket: Bucket, elapsed: int, span: int) -> Bucket:
    """Let ``elapsed`` ms pass; a bucket holds at most what its rate gives in ``span`` ms."""
    level = min(bucket.level + min(elapsed, FULL_MS) * bucket.rate, bucket.rate * span)
    return replace(bucket, level=level)


def rewound(bucket: Bucket, by: int) -> Bucket:
    """The same bucket after the clock was set back by ``by`` ms."""
    eased_at = max(bucket.eased_at - by, 1) if bucket.eased_at else 0
    return replace(bucket, eased_at=eased_at, grown_at=bucket.grown_at - by, since=0)


def decide(bucket: Bucket, cost: int, floor: int, span: int) -> Decision:
    """Whether ``cost`` units may go.

    Args:
        bucket: refilled up to now.
        cost: units.
        floor: ms worth of the rate that must stay in the bucket.
        span: ms worth of the rate that the bucket holds.
    """
    need = min(cost * UNIT, bucket.rate * (span - floor)) + bucket.rate * floor
    short = need - bucket.level
    if short <= 0:
        return Decision(True)
    return Decision(False, -(-short // bucket.rate))


def take(bucket: Bucket, cost: int) -> Bucket:
    """Debit ``cost`` units; a negative cost gives back (the next refill caps the level)."""
    return replace(bucket, level=bucket.level - cost * UNIT, served=bucket.served + cost)


def limited_by(bucket: Bucket, limit_set: int) -> Bucket:
    """Take over the user's limit; what was learned under another one is forgotten."""
    if limit_set == bucket.set:
        return bucket
    changed = replace(bucket, set=limit_set, failed=0, eased_at=0, ramping=0, since=0)
    return replace(changed, rate=changed.ceiling if changed.known else bucket.rate)


def learn(bucket: Bucket, limit: int, remaining: int, out: int, cost: int, ramp: int) -> Bucket:
    """Take note of a reply's headers.

    Args:
        bucket: as it is.
        limit: units a minute, below 1 where the header is missing.
        remaining: units left at the provider, below 0 where the header is missing.
        out: units of other requests under way, which the provider may not have seen yet.
        cost: units of the request that was answered; a limit below it is absurd.
        ramp: 1 to climb above ``RAMP_FROM`` by the API's rule from the start.
    """
    if not max(cost, 1) <= limit <= bucket.most:
        return bucket
    first, before = not bucket.known, bucket.ceiling
    told = replace(bucket, limit=limit)
    if (first and bucket.eased_at == 0) or bucket.rate >= before:
        told = _held_to_ramp(replace(told, rate=told.ceiling), bucket.rate, ramp)
    else:
        told = replace(told, rate=min(bucket.rate, told.ceiling))
    if 0 <= remaining <= limit:
        left = (remaining - out) * UNIT
        return replace(told, level=left if first else min(told.level, left))
    return replace(told, level=max(told.level, 0)) if first else told


def _held_to_ramp(bucket: Bucket, before: int, ramp: int) -> Bucket:
    start = max(before, RAMP_FROM)
    if not ramp or bucket.rate <= start or bucket.most != MOST_TOKENS:
        return bucket
    return replace(bucket, rate=start, ramping=1)


def acknowledged(bucket: Bucket, now: int) -> Bucket:
    """A success that named no limit, where none is known: there is none, until a refusal."""
    if bucket.bounded:
        return bucket
    full = bucket.most * LONGEST_MS  # the next refill caps it
    return replace(bucket, rate=bucket.most, level=full, grown_at=now)


def refused(
    bucket: Bucket, cost: int, granted_at: int, now: int, per_cent: int, sustained: int = 0
) -> Bucket:
    """A 429: slow down, once for all requests that left at the old rate.

    Args:
        bucket: as it is.
        cost: units of the refused request.
        granted_at: when it got its permit.
        now: the instant.
        per_cent: of the rate, to be left where nothing better is known.
        sustained: units a minute that the provider was seen to sustain (``lately``).
    """
    served = bucket.served - (cost if granted_at > bucket.since else 0)
    bucket = replace(bucket, level=min(bucket.level, 0), served=served)
    if granted_at <= bucket.eased_at:
        return _at_least(bucket, min(sustained, bucket.most))
    found = 0 if per_cent == EASE_RAMP else _measured(bucket, cost, now)
    met = min(found or bucket.rate, bucket.rate)
    rate = met * (EASE_MEASURED if found else _left(bucket, per_cent)) // 100
    rate = min(max(rate, bucket.least), bucket.rate)
    if not bucket.known and bucket.rate == bucket.most:
        rate = bucket.safe  # there is a limit after all, and nobody says which
    eased = replace(
        bucket,
        rate=rate,
        failed=met if bucket.known or _agrees(found, bucket.found) else bucket.most,
        found=found,
        eased_at=now,
        grown_at=now,
        ramping=1 if per_cent == EASE_RAMP else bucket.ramping,
    )
    eased = _at_least(eased, min(sustained, bucket.rate))
    return eased if found and now - bucket.since < ANEW_MS else _anew(eased, now)


def _at_least(bucket: Bucket, sustained: int) -> Bucket:
    return bucket if bucket.known else replace(bucket, rate=max(bucket.rate, sustained))


def _agrees(found: int, before: int) -> bool:
    """A limit that is kept is found again; a 429 by chance is met at whatever rate there was."""
    return found > 0 and before * AGREE[0] <= found * 100 <= before * AGREE[1]


def _left(bucket: Bucket, per_cent: int) -> int:
    return per_cent if bucket.known else min(per_cent, EASE_BLIND)


def _measured(bucket: Bucket, cost: int, now: int) -> int:
    """The provider's rate, at most; 0 where nothing can be said.

    Its bucket was empty at each of the refusals since ``since``, but for less than what one
    request costs: so all that it was refilled with in between was served.
    """
    elapsed = now - bucket.since
    if bucket.since == 0 or now - bucket.eased_at > MEASURE_MS or elapsed <= 0:
        return 0
    return max(bucket.served + cost, 1) * UNIT // elapsed


def _anew(bucket: Bucket, now: int) -> Bucket:
    return replace(bucket, since=now, served=0)


def lowered(bucket: Bucket, before: int, now: int) -> Bucket:
    """A 429 whose headers explain it by a limit below the rate ``before``: that will do."""
    told = replace(bucket, level=min(bucket.level, 0), failed=before, eased_at=now, grown_at=now)
    return _anew(told, now)


def grow(bucket: Bucket, now: int, hungry: bool) -> Bucket:
    """Climb back towards the ceiling, as long as somebody wants more."""
    ceiling = bucket.ceiling
    elapsed = min(now - bucket.grown_at, LONGEST_MS)
    climbs = bucket.eased_at > 0 or bucket.ramping > 0
    if not hungry or not climbs or bucket.rate >= ceiling:
        return replace(bucket, grown_at=now) if climbs or bucket.known else bucket
    step = _step(bucket, ceiling, elapsed, now)
    if step == 0:
        return bucket
    rate = min(bucket.rate + step, ceiling)
    ramping = 0 if rate == ceiling else bucket.ramping
    worth = max(bucket.level, 0) // bucket.rate  # ms: what is kept back for urgent work grows too
    level = bucket.level + worth * (rate - bucket.rate)
    return replace(bucket, rate=rate, level=level, grown_at=now, ramping=ramping)


def _step(bucket: Bucket, ceiling: int, elapsed: int, now: int) -> int:
    if bucket.ramping and bucket.rate >= RAMP_FROM:
        return bucket.rate * elapsed // RAMP_MS
    base = ceiling if bucket.known else max(bucket.rate, bucket.safe)
    pace = QUICK if bucket.known else QUICK_BLIND
    if bucket.rate * 100 >= bucket.failed * 95:
        seconds = min(now - bucket.eased_at, LONGEST_MS) // 1000
        pace = min(CREEP + seconds * seconds // 100, pace)
    return base * pace * elapsed // 1_000_000
