"""Compatible servers beside other providers, as the settings have them.

Belongs here: which providers are checked, and against what. Does not belong here: the check
(``embedders.vouching``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from embedding_pipeline.assembly.known import SharedStore, known_texts
from embedding_pipeline.assembly.parts import build_budgets
from embedding_pipeline.cache.database import find_space
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders import vouchers
from embedding_pipeline.embedders.booking import Booking
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.embedders.fallback import Route
from embedding_pipeline.embedders.vouchers import Voucher
from embedding_pipeline.embedders.vouching import Vouching
from embedding_pipeline.settings.tree import Settings


def identity_of(provider: ProviderConfig) -> str:
    """A server is another one at another address, or under another deployment."""
    return f"{provider.name} {provider.base_url} {provider.deployment or ''}".strip()


def voucher_of(
    settings: Settings, provider: ProviderConfig, connection: Connection
) -> Voucher | None:
    """What is known of a server, for whoever wants to tell."""
    number = find_space(connection, settings.model_spec.space)
    return None if number is None else vouchers.find(connection, number, identity_of(provider))


def vouched_for(
    settings: Settings,
    routes: Sequence[Route],
    unproven: Mapping[str, ProviderConfig],
    clock: Clock,
) -> list[Route]:
    """The routes; those of ``unproven`` providers are checked before they are used."""
    references = [(one.name, one.breaking) for one in routes if one.name not in unproven]
    shared = SharedStore(settings, clock)
    price = settings.model_spec.nano_usd_per_token
    booking = Booking(shared.get, price, build_budgets(settings), clock)

    def check(route: Route, provider: ProviderConfig) -> Route:
        vouching = Vouching(
            route.breaking,
            route.name,
            identity_of(provider),
            references=references,
            known=lambda: known_texts(settings, shared),
            store=shared.get,
            on_close=shared.close,
            booking=booking,
            clock=clock,
        )
        return replace(route, vouching=vouching)

    return [
        check(route, unproven[route.name]) if route.name in unproven else route for route in routes
    ]
