"""The Batch API from settings: who takes batches, and sending work there ahead of a run.

Belongs here: joining settings, store and the parts of ``batch_api``; the decision asked for
some work. Does not belong here: the rules (``batch_api.decision``), or moving submissions on
from time to time (``batch_keeping``).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from embedding_pipeline.assembly.batch_way import provider_of, queue_of, verdict_of
from embedding_pipeline.assembly.parts import build_budgets, open_store
from embedding_pipeline.assembly.service import service_config
from embedding_pipeline.batch_api import books
from embedding_pipeline.batch_api.advancing import Advancer
from embedding_pipeline.batch_api.client import BatchClient
from embedding_pipeline.batch_api.decision import (
    HOUR_MS,
    Verdict,
    enqueueable,
    had_its_turn,
    turn_hours,
)
from embedding_pipeline.batch_api.files import FileCaps, Wanted
from embedding_pipeline.batch_api.records import Terms
from embedding_pipeline.batch_api.submitting import Mark, Submitted, Submitter, unmarked
from embedding_pipeline.cache import database
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import ConfigurationError, ProviderError
from embedding_pipeline.pipeline.batching import Work, embedded_days, misses, tokens_of
from embedding_pipeline.pipeline.plan import looking_up
from embedding_pipeline.service.outages import outage_of
from embedding_pipeline.service.work import Deferral
from embedding_pipeline.settings.environment import api_key, base_url
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store
from embedding_pipeline.vectors.datasets import Datasets


@dataclass(frozen=True)
class Batching:
    """What sends and keeps the submissions of one model; made by ``open_batching``."""

    settings: Settings
    store: Store
    client: BatchClient
    terms: Terms
    clock: Clock
    mark: Mark

    def submitter(self) -> Submitter:
        """Makes submissions, one call at a time."""
        config, priced = self.settings.batch_api, bool(self.terms.price)
        return Submitter(
            self.store,
            self.client,
            self.terms,
            self.clock,
            caps=FileCaps(max_weight=enqueueable(config)),
            purse=build_budgets(self.settings) if priced else None,
            mark=self.mark,
        )

    def advancer(self) -> Advancer:
        """Moves submissions on."""
        config = self.settings.batch_api
        return Advancer(self.store, self.client, self.terms, config, self.clock, mark=self.mark)


@asynccontextmanager
async def open_batching(
    settings: Settings, store: Store, clock: Clock | None = None
) -> AsyncIterator[Batching]:
    """The Batch API of the settings' model.

    Raises:
        ConfigurationError: the model or the providers have none, or there is no key.
    """
    clock, provider = clock or SystemClock(), provider_of(settings)
    secret = api_key(provider)
    if secret is None:
        raise ConfigurationError(
            f"the Batch API of {provider.name} needs a key, but the environment variable "
            f"{provider.api_key_env} holds none; set it"
        )
    terms = await store.write(lambda c: _terms(c, settings, provider))
    client = BatchClient(provider.name, secret.get_secret_value(), base_url(provider), clock)
    try:
        yield Batching(settings, store, client, terms, clock, unmarked)
    finally:
        await client.aclose()


def _terms(connection: Connection, settings: Settings, provider: ProviderConfig) -> Terms:
    spec = settings.model_spec
    return Terms(
        spec.space,
        database.space_id(connection, spec.space),
        spec.space.model,
        provider.name,
        queue_of(settings),
        spec.batch_nano_usd_per_token,
        settings.cache.dtype,
        database.store_identity(connection)[:8],
    )


@dataclass(frozen=True)
class Sent:
    """What was sent to the Batch API ahead of a run.

    Attributes:
        verdict: how the work goes, and why.
        submitted: what became of it; None where nothing was to be sent.
        hold: why everything that is missing is to be left for later; None where it is not.
    """

    verdict: Verdict
    submitted: Submitted | None = None
    hold: Deferral | None = None

    def __str__(self) -> str:
        done = self.submitted
        if self.hold is not None:
            return self.hold.message
        if done is None:
            return f"one request at a time: {self.verdict.reason}"
        said = f"{done.inputs} texts in {len(done.ids)} files for the Batch API"
        if done.elsewhere:
            said += f", {done.elsewhere} are there or on their way"
        if done.unpaid:
            said += f", {done.unpaid} have no room in a budget"
        return f"{said} ({self.verdict.reason})"


async def send(
    settings: Settings, store: Store, work: Work, run_key: str, clock: Clock | None = None
) -> Sent:
    """Send the misses of some work to the Batch API, if that is how they are to go.

    The batches are asked for at once, as far as the provider's queue has room.

    Raises:
        ConfigurationError: there is no key.
        ProviderError: an upload failed; what was uploaded before goes its way.
        StateError: the store refused.
    """
    rules = service_config(settings, "").rules
    lookup = looking_up(store, settings.model_spec.space)
    verdict = await _decide(settings, lambda: misses(work, rules, lookup))
    if verdict.way == "sync":
        return Sent(verdict)
    async with open_batching(settings, store, clock) as batching:
        done = await batching.submitter().submit(misses(work, rules, lookup), run_key)
        if done.ids:
            await batching.advancer().advance(only=done.ids)
    return Sent(verdict, done)


async def _decide(settings: Settings, groups: Callable[[], AsyncIterator[list[Wanted]]]) -> Verdict:
    """The verdict; texts are counted only where it hangs on their number."""
    least = settings.batch_api.min_tokens
    verdict = verdict_of(settings, least)
    if settings.batch_api.mode != "auto" or verdict.way == "sync":
        return verdict
    return verdict_of(settings, await tokens_of(groups(), least))


async def send_days(
    settings: Settings,
    datasets: Datasets,
    days: Sequence[str],
    run_key: str,
    clock: Clock | None = None,
) -> Sent | None:
    """Send what days lack to the Batch API ahead of their run; None where it is off.

    Days that a batch has just had its turn with are not sent again: what they still lack
    goes one request at a time.

    Args:
        settings: with the model that the run writes.
        datasets: where the days' representatives are.
        days: of the run.
        run_key: the run, for people.
        clock: time.

    Returns:
        What was sent. Where the upload failed and ``on_outage`` does not say ``fail``, with
        the reason for which the run is to leave what is missing for later.

    Raises:
        ConfigurationError: there is no key.
        ProviderError: an upload failed.
        StateError: the store refused.
    """
    if settings.batch_api.mode == "off":
        return None
    clock = clock or SystemClock()
    with open_store(settings, clock) as store:
        left = await still_to_batch(settings, store, days, clock)
        if not left:
            return Sent(Verdict("sync", "a batch has just had its turn with these days"))
        try:
            return await send(settings, store, embedded_days(datasets, left), run_key, clock)
        except ProviderError as error:
            hold = outage_of(error) if settings.on_outage != "fail" else None
            if hold is None:
                raise
            return Sent(Verdict("batch", "it is tried again"), hold=hold)


async def still_to_batch(
    settings: Settings, store: Store, days: Sequence[str], clock: Clock
) -> list[str]:
    """Those of some days that no batch has had its turn with (``decision.had_its_turn``)."""
    config, now = settings.batch_api, int(clock.now() * 1000)
    since = now - int(turn_hours(config) * HOUR_MS)

    def read(connection: Connection) -> set[str]:
        number = database.find_space(connection, settings.model_spec.space)
        ended = [] if number is None else books.ended(connection, number, since)
        over = [one for one in ended if had_its_turn(config, one, now)]
        return {account.partition for one in over for account in one.accounts}

    done = await store.read(read)
    return [day for day in days if day not in done]
