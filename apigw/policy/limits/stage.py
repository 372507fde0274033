# Compiled: see docs/decisions/compiled.md
"""The stages of limits: they count an exchange, and refuse it if a limit is exceeded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from apigw import errors
from apigw.contract.exchange import DROPPED, Exchange, OnRefusal, Outcome, Screen, Stage, Waiting
from apigw.errors import GatewayError
from apigw.policy.limits.arithmetic import HEADERS, Checks, Decision, Limit
from apigw.policy.limits.concurrent import Claim, ConcurrentLimit
from apigw.policy.limits.fields import Fields
from apigw.policy.limits.in_redis import Outcome as Counted
from apigw.policy.limits.in_redis import Pending, RedisStore
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.plans import Plans, of_addresses
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.selection import Selection

LimitStore = LocalStore | RedisStore

Violated = Callable[[Quota], object]
"""Called with each limit that refuses an exchange."""

_WITHOUT_LIMITS: Final = DROPPED | HEADERS
"""Headers that are removed from the service's answer: its own limits would contradict the gateway's."""


class Counting:
    """What the stages of all routes count with. ``fields`` are those of answers, where they are not the usual ones."""

    def __init__(self, store: LimitStore, callers: Callers, violated: Violated, fields: Fields | None = None) -> None:
        self.store = store
        self.callers = callers
        self.violated = violated
        self.fields = fields


class OfRoute:
    """What of the limits in force, or of the dry runs, applies to a route."""

    def __init__(
        self, rates: Selection[Limit], concurrent: Selection[ConcurrentLimit], plans: Selection[Plans]
    ) -> None:
        self.rates = rates
        self.concurrent = concurrent
        self.plans = plans
        self.addresses = Selection(of_addresses(rates.always), of_addresses(rates.sometimes))

    def __bool__(self) -> bool:
        return bool(self.rates or self.concurrent or self.plans)

    def of(self, exchange: Exchange) -> tuple[tuple[Limit, ...], tuple[ConcurrentLimit, ...]]:
        """The limits of both kinds that apply to an exchange, those of its caller's plans included."""
        path, host = exchange.request.path, exchange.request.authority
        rates, concurrent = self.rates.of(path, host), self.concurrent.of(path, host)
        for each in self.plans.of(path, host):
            plan = each.of(exchange)
            if plan is not None:
                rates += plan.rates
                concurrent += plan.concurrent
        return rates, concurrent


class Count(Stage):
    """Checks all limits of a route at once. It waits for Redis, but not for the store in memory."""

    def __init__(self, selection: Selection[Limit], counting: Counting) -> None:
        self._selection = selection
        self._counting = counting

    def run(self, exchange: Exchange) -> Outcome:
        return count(exchange, _applying(self._selection, exchange), self._counting)


class CountAndClaim(Stage):
    """``Count`` for a route with a concurrency limit, or with plans."""

    def __init__(self, limits: OfRoute, counting: Counting) -> None:
        self._limits = limits
        self._counting = counting

    def run(self, exchange: Exchange) -> Outcome:
        rates, concurrent = self._limits.of(exchange)
        return (
            claim(exchange, rates, concurrent, self._counting) if concurrent else count(exchange, rates, self._counting)
        )


class ChargeAddress(OnRefusal):
    """Counts a 401 in the limits of its address, so that guesses of tokens lead to 429. Of plans it is that of an
    anonymous caller."""

    def __init__(self, selection: Selection[Limit], counting: Counting, plans: Selection[Plans] | None = None) -> None:
        self._selection = selection
        self._plans: Selection[Plans] = Selection() if plans is None else plans
        self._counting = counting

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if not is_turned_away(error):
            return None
        return count(exchange, charged(exchange, self._selection, self._plans), self._counting)


class RefuseSpent(Screen):
    """Refuses an address that has used up a limit before its token is verified, because that costs CPU time.

    For limits in Redis, it only uses refusals that this process has remembered. Plans are not known before the caller
    is.
    """

    def __init__(self, selection: Selection[Limit], counting: Counting) -> None:
        self._selection = selection
        self._counting = counting

    def run(self, exchange: Exchange) -> None:
        limits = _applying(self._selection, exchange)
        if limits:
            counting = self._counting
            key = counting.callers.address(exchange)
            checks = [(limit, key) for limit in limits]
            decision = counting.store.spent(checks, exchange.started_at)
            if decision is not None:
                decide(exchange, decision, checks, None, counting)


def is_turned_away(error: GatewayError) -> bool:
    """Whether it is a 401 that counts: of the gateway, or of an external check, which is asked before limits."""
    return isinstance(error, errors.Unauthorized) or (isinstance(error, errors.CheckRefused) and error.status == 401)


def charged(exchange: Exchange, selection: Selection[Limit], plans: Selection[Plans]) -> tuple[Limit, ...]:
    """The limits that a 401 counts in."""
    limits = _applying(selection, exchange)
    request = exchange.request
    for each in plans.of(request.path, request.authority):
        plan = each.of(exchange)
        if plan is not None:
            limits += plan.by_address
    return limits


def _applying(selection: Selection[Limit], exchange: Exchange) -> tuple[Limit, ...]:
    if not selection.sometimes:
        return selection.always
    return selection.of(exchange.request.path, exchange.request.authority)


def count(exchange: Exchange, limits: tuple[Limit, ...], counting: Counting) -> Waiting | None:
    """Check the limits that apply to an exchange. Raises ``GatewayError`` if one refuses it."""
    store, callers = counting.store, counting.callers
    if len(limits) == 1 and isinstance(store, LocalStore):
        limit = limits[0]
        key = callers.key(exchange, limit)
        decision = store.check_one(limit, key, exchange.started_at)
        if counting.fields is None:
            tell(exchange, decision, counting)
        else:
            decide(exchange, decision, [(limit, key)], None, counting)
        return None
    if not limits:
        return None
    checks: Checks = []
    for limit in limits:
        checks.append((limit, callers.key(exchange, limit)))
    if isinstance(store, LocalStore):
        decide(exchange, store.check(checks, exchange.started_at), checks, None, counting)
        return None
    asked = store.ask(checks, partial(_told, exchange, checks, None, counting))
    if isinstance(asked, Pending):
        return asked
    decide(exchange, asked, checks, None, counting)
    return None


def claim(
    exchange: Exchange, rates: tuple[Limit, ...], concurrent: tuple[ConcurrentLimit, ...], counting: Counting
) -> Waiting | None:
    """``count``, and take a place of each ``concurrent`` limit."""
    store, callers = counting.store, counting.callers
    wanted = [(limit, callers.key(exchange, limit)) for limit in concurrent]
    checks: Checks = [(limit, callers.key(exchange, limit)) for limit in rates]
    places = Claim(wanted, store)
    exchange.at_end = (*exchange.at_end, places)
    if isinstance(store, LocalStore):
        decide(exchange, store.admit(checks, places, exchange.started_at), checks, places, counting)
        return None
    asked = store.ask(checks, partial(_told, exchange, checks, places, counting), places)
    if isinstance(asked, Pending):
        return asked
    decide(exchange, asked, checks, places, counting)
    return None


def _told(exchange: Exchange, checks: Checks, places: Claim | None, counting: Counting, outcome: Counted) -> None:
    """Redis has answered, or has failed to."""
    try:
        if isinstance(outcome, errors.LimitsUnavailable):
            raise outcome
        decide(exchange, outcome, checks, places, counting)
    except GatewayError as error:
        exchange.fail(error)
    else:
        exchange.resume(None)


def decide(
    exchange: Exchange, decision: Decision | None, checks: Checks, places: Claim | None, counting: Counting
) -> None:
    """Add the decision's headers to the answer. Raises ``RateLimited`` if a limit refuses the exchange, or there is no
    place for it."""
    fields = counting.fields
    if fields is not None:
        fields.tell(exchange, decision, checks, places)
        if decision is not None and not decision.allowed:
            raise _refused(decision, counting)
    elif decision is not None:
        tell(exchange, decision, counting)
    full = None if places is None else places.full
    if full is not None:
        counting.violated(full)
        raise errors.RateLimited("Too many requests at a time; see Retry-After.", [(b"retry-after", b"1")])


def tell(exchange: Exchange, decision: Decision, counting: Counting) -> None:
    """Add the usual headers of a decision to the answer. Raises ``RateLimited`` if the exchange is refused."""
    dropped = exchange.dropped
    exchange.dropped = _WITHOUT_LIMITS if dropped is DROPPED else dropped | HEADERS
    added = exchange.added
    exchange.added = [*added, *decision.headers] if added else decision.headers
    if not decision.allowed:
        raise _refused(decision, counting)


def _refused(decision: Decision, counting: Counting) -> GatewayError:
    counting.violated(decision.limit)
    return errors.RateLimited("Too many requests; see Retry-After.")
