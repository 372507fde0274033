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
from apigw.policy.limits.in_redis import Outcome as Counted
from apigw.policy.limits.in_redis import Pending, RedisStore
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.selection import Selection

LimitStore = LocalStore | RedisStore

Violated = Callable[[Quota], object]
"""Called with each limit that refuses an exchange."""

_WITHOUT_LIMITS: Final = DROPPED | HEADERS
"""Headers that are removed from the service's answer: its own limits would contradict the gateway's."""


class Counting:
    """What the stages of all routes count with."""

    def __init__(self, store: LimitStore, callers: Callers, violated: Violated) -> None:
        self.store = store
        self.callers = callers
        self.violated = violated


class Count(Stage):
    """Checks all limits of a route at once. It waits for Redis, but not for the store in memory."""

    def __init__(self, selection: Selection[Limit], counting: Counting) -> None:
        self._selection = selection
        self._counting = counting

    def run(self, exchange: Exchange) -> Outcome:
        return count(exchange, self._selection, self._counting)


class CountAndClaim(Stage):
    """``Count`` for a route with a concurrency limit."""

    def __init__(
        self,
        rates: Selection[Limit],
        concurrent: Selection[ConcurrentLimit],
        counting: Counting,
    ) -> None:
        self._rates = rates
        self._concurrent = concurrent
        self._counting = counting

    def run(self, exchange: Exchange) -> Outcome:
        request, counting = exchange.request, self._counting
        path, host = request.path, request.authority
        store, callers, violated = counting.store, counting.callers, counting.violated
        wanted = [(limit, callers.key(exchange, limit.scope)) for limit in self._concurrent.of(path, host)]
        if not wanted:
            return count(exchange, self._rates, counting)
        checks: Checks = [(limit, callers.key(exchange, limit.scope)) for limit in self._rates.of(path, host)]
        claim = Claim(wanted, store)
        exchange.at_end = (*exchange.at_end, claim)
        if isinstance(store, LocalStore):
            admit(exchange, store.admit(checks, claim, exchange.started_at), claim, violated)
            return None
        decision = store.ask(checks, partial(_told, exchange, claim, violated), claim)
        if isinstance(decision, Pending):
            return decision
        admit(exchange, decision, claim, violated)
        return None


class ChargeAddress(OnRefusal):
    """Counts a 401 in the ``ip`` limits of its address, so that guesses of tokens lead to 429."""

    def __init__(self, selection: Selection[Limit], counting: Counting) -> None:
        self._selection = selection
        self._counting = counting

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if not isinstance(error, errors.Unauthorized):
            return None
        return count(exchange, self._selection, self._counting)


class RefuseSpent(Screen):
    """Refuses an address that has used up a limit before its token is verified, because that costs CPU time.

    For limits in Redis, it only uses refusals that this process has remembered.
    """

    def __init__(self, selection: Selection[Limit], counting: Counting) -> None:
        self._selection = selection
        self._counting = counting

    def run(self, exchange: Exchange) -> None:
        limits = _applying(self._selection, exchange)
        if limits:
            counting = self._counting
            key = counting.callers.address(exchange)
            decision = counting.store.spent([(limit, key) for limit in limits], exchange.started_at)
            if decision is not None:
                decide(exchange, decision, counting.violated)


def _applying(selection: Selection[Limit], exchange: Exchange) -> tuple[Limit, ...]:
    if not selection.sometimes:
        return selection.always
    return selection.of(exchange.request.path, exchange.request.authority)


def count(exchange: Exchange, selection: Selection[Limit], counting: Counting) -> Waiting | None:
    """Check the limits that apply to an exchange. Raises ``GatewayError`` if one refuses it."""
    limits = _applying(selection, exchange)
    store, callers, violated = counting.store, counting.callers, counting.violated
    if len(limits) == 1 and isinstance(store, LocalStore):
        limit = limits[0]
        key = callers.key(exchange, limit.scope)
        decide(exchange, store.check_one(limit, key, exchange.started_at), violated)
        return None
    if not limits:
        return None
    checks: Checks = []
    for limit in limits:
        checks.append((limit, callers.key(exchange, limit.scope)))
    if isinstance(store, LocalStore):
        decide(exchange, store.check(checks, exchange.started_at), violated)
        return None
    decision = store.ask(checks, partial(_told, exchange, None, violated))
    if isinstance(decision, Pending):
        return decision
    decide(exchange, decision, violated)
    return None


def _told(exchange: Exchange, claim: Claim | None, violated: Violated, outcome: Counted) -> None:
    """Redis has answered, or has failed to."""
    try:
        if isinstance(outcome, errors.LimitsUnavailable):
            raise outcome
        if claim is None:
            decide(exchange, outcome, violated)
        else:
            admit(exchange, outcome, claim, violated)
    except GatewayError as error:
        exchange.fail(error)
    else:
        exchange.resume(None)


def admit(exchange: Exchange, decision: Decision | None, claim: Claim, violated: Violated) -> None:
    """``decide``, and raise ``RateLimited`` if the exchange gets no place."""
    decide(exchange, decision, violated)
    full = claim.full
    if full is not None:
        violated(full)
        raise errors.RateLimited("Too many requests at a time; see Retry-After.", [(b"retry-after", b"1")])


def decide(exchange: Exchange, decision: Decision | None, violated: Violated) -> None:
    """Add the decision's headers to the answer. Raises ``RateLimited`` if the exchange is refused."""
    if decision is None:
        return
    dropped = exchange.dropped
    exchange.dropped = _WITHOUT_LIMITS if dropped is DROPPED else dropped | HEADERS
    added = exchange.added
    exchange.added = [*added, *decision.headers] if added else decision.headers
    if not decision.allowed:
        violated(decision.limit)
        raise errors.RateLimited("Too many requests; see Retry-After.")
