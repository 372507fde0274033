# Compiled: see docs/decisions/compiled.md
"""Plans: limits that depend on who calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from apigw.contract.exchange import Exchange
from apigw.policy.auth.authorization import as_demanded, unmet
from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.concurrent import ConcurrentLimit
from apigw.policy.limits.model import RateLimit, Who
from apigw.policy.limits.quota import Placed, Quota
from apigw.routing.conditions import Conditions

Place = tuple[str | None, object, frozenset[str]]


class Fits:
    """Whether a plan is for the caller of an exchange."""

    def __init__(self, who: Who) -> None:
        self._headers = Conditions(who.headers) if who.headers else None
        self._asks_for_caller = who.asks_for_caller
        self._roles = frozenset(who.roles)
        self._providers = frozenset(who.providers)
        self._principals = frozenset(who.principals)
        self._claims: tuple[tuple[str, tuple[Any, ...]], ...] = as_demanded(who.claims)

    def __call__(self, exchange: Exchange) -> bool:
        headers = self._headers
        if headers is not None and not headers.hold(exchange.headers, b""):
            return False
        if not self._asks_for_caller:
            return True
        principal = exchange.principal
        if principal is None:
            return False
        if self._roles and self._roles.isdisjoint(principal.roles):
            return False
        if self._providers and principal.provider not in self._providers:
            return False
        if self._principals and principal.id not in self._principals:
            return False
        return not self._claims or unmet(principal.claims, self._claims) is None


class Plan:
    """The limits of those whom it ``fits``. ``by_address`` are those of the rates that a 401 counts in."""

    def __init__(self, fits: Fits, rates: tuple[Limit, ...], concurrent: tuple[ConcurrentLimit, ...]) -> None:
        self.fits = fits
        self.rates = rates
        self.concurrent = concurrent
        self.by_address = of_addresses(rates)


class Plans(Placed):
    """The plans for one place, in the order in which they are tried."""

    def __init__(self, place: RateLimit, plans: tuple[Plan, ...]) -> None:
        super().__init__(place)
        self._plans = plans

    def of(self, exchange: Exchange) -> Plan | None:
        """The first that fits."""
        for plan in self._plans:
            if plan.fits(exchange):
                return plan
        return None


def of_addresses(rates: Iterable[Limit]) -> tuple[Limit, ...]:
    """Those that count by address alone. A 401 counts there; if they refuse, the answer is 429."""
    return tuple([limit for limit in rates if limit.scope == "ip"])


def plans_of(limits: Iterable[Quota], dry: bool) -> Iterator[tuple[RateLimit, Plans] | None]:
    """The plans of each place, with an entry that is there; of ``dry`` runs, or those that are in force. ``None`` comes
    in between, so that there may be many.

    What is in force does not depend on dry runs. A dry run is of those who would have its plan.
    """
    places: dict[Place, dict[Who, list[Quota]]] = {}
    first: dict[Place, RateLimit] = {}
    for limit in limits:
        config = limit.config
        who = config.who
        if who is not None and (dry or not config.dry_run):
            place = _place(limit)
            first.setdefault(place, config)
            held = places.setdefault(place, {}).setdefault(who, [])
            if config.dry_run is dry:
                held.append(limit)
        yield None
    for place, plans in places.items():
        if any(plans.values()):
            entry = first[place]
            yield entry, Plans(entry, tuple([_plan(who, held) for who, held in plans.items()]))


def _plan(who: Who, limits: list[Quota]) -> Plan:
    rates = tuple([limit for limit in limits if isinstance(limit, Limit)])
    return Plan(Fits(who), rates, tuple([limit for limit in limits if isinstance(limit, ConcurrentLimit)]))


def _place(limit: Quota) -> Place:
    """Equal for limits of the same requests."""
    config, pattern = limit.config, limit.pattern
    return config.route, None if pattern is None else pattern.shape, frozenset(config.hosts)
