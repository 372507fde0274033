# Compiled: see docs/decisions/compiled.md
"""The stage of rate limits: counts an exchange, and refuses it if a limit is exceeded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from apigw import errors
from apigw.contract.exchange import DROPPED, Exchange, OnRefusal, Outcome, Screen, Stage, Waiting
from apigw.errors import GatewayError
from apigw.policy.limits.arithmetic import HEADERS, Checks, Decision, Limit
from apigw.policy.limits.in_redis import Outcome as Counted
from apigw.policy.limits.in_redis import Pending, RedisStore
from apigw.policy.limits.keys import address_key
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.selection import Selection

LimitStore = MemoryStore | RedisStore

Violated = Callable[[Limit], object]
"""Called with each limit that refuses an exchange."""

_WITHOUT_LIMITS = DROPPED | HEADERS
"""Headers that are removed from the service's answer: its own limits would contradict the gateway's."""


class Count(Stage):
    """Checks all limits of a route at once. It waits for Redis, but not for the store in memory."""

    def __init__(self, selection: Selection, store: LimitStore, violated: Violated) -> None:
        self._selection = selection
        self._store = store
        self._violated = violated

    def run(self, exchange: Exchange) -> Outcome:
        return count(exchange, self._selection, self._store, self._violated)


class ChargeAddress(OnRefusal):
    """Counts a 401 in the ``ip`` limits of its address, so that guessing tokens leads to 429."""

    def __init__(self, selection: Selection, store: LimitStore, violated: Violated) -> None:
        self._selection = selection
        self._store = store
        self._violated = violated

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if not isinstance(error, errors.Unauthorized):
            return None
        return count(exchange, self._selection, self._store, self._violated)


class RefuseSpent(Screen):
    """Refuses where an address has used up a limit, so that nobody has the gateway verify tokens without end.

    Where limits are counted in Redis, it knows what was refused here.
    """

    def __init__(self, selection: Selection, store: LimitStore, violated: Violated) -> None:
        self._selection = selection
        self._store = store
        self._violated = violated

    def run(self, exchange: Exchange) -> None:
        selection = self._selection
        limits = selection.always if not selection.sometimes else selection.of(exchange.request.path)
        if limits:
            key = address_key(exchange.client_address)
            decision = self._store.spent([(limit, key) for limit in limits], exchange.started_at)
            if decision is not None:
                decide(exchange, decision, self._violated)


def count(exchange: Exchange, selection: Selection, store: LimitStore, violated: Violated) -> Waiting | None:
    """Check the limits that apply to an exchange. Raises ``GatewayError`` if one refuses it."""
    limits = selection.always if not selection.sometimes else selection.of(exchange.request.path)
    if not limits:
        return None
    principal = exchange.principal
    checks: Checks = []
    for limit in limits:
        scope = limit.scope
        if scope == "endpoint":
            key = b""
        elif scope == "user" and principal is not None:
            key = principal.key
        else:
            key = address_key(exchange.client_address)
        checks.append((limit, key))
    if isinstance(store, MemoryStore):
        decide(exchange, store.check(checks, exchange.started_at), violated)
        return None
    decision = store.ask(checks, partial(_told, exchange, violated))
    if isinstance(decision, Pending):
        return decision
    decide(exchange, decision, violated)
    return None


def _told(exchange: Exchange, violated: Violated, outcome: Counted) -> None:
    """Redis has answered, or has failed to."""
    try:
        if isinstance(outcome, errors.LimitsUnavailable):
            raise outcome
        decide(exchange, outcome, violated)
    except GatewayError as error:
        exchange.fail(error)
    else:
        exchange.resume(None)


def decide(exchange: Exchange, decision: Decision | None, violated: Violated) -> None:
    """Add the decision's headers to the answer. Raises ``RateLimited`` if the exchange is refused."""
    if decision is None:
        return
    dropped = exchange.dropped
    exchange.dropped = _WITHOUT_LIMITS if dropped is DROPPED else dropped | HEADERS
    exchange.added = [*exchange.added, *decision.headers]
    if not decision.allowed:
        violated(decision.limit)
        raise errors.RateLimited("Too many requests; see Retry-After.")
