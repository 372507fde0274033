# Compiled: see docs/decisions/compiled.md
"""The part of limits in an exchange: count it, and refuse it where too many came."""

from __future__ import annotations

from functools import partial

from apigw import errors
from apigw.contract.exchange import Exchange, OnRefusal, Outcome, Stage, Waiting
from apigw.errors import GatewayError
from apigw.policy.limits.decision import Checks, Violated, tell
from apigw.policy.limits.in_redis import Outcome as Counted
from apigw.policy.limits.in_redis import Pending, RedisStore
from apigw.policy.limits.keys import address_key
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.selection import Selection

LimitStore = MemoryStore | RedisStore


class Count(Stage):
    """Counts an exchange against every limit of its route, in one check. Waits only for Redis, never for memory."""

    def __init__(self, selection: Selection, store: LimitStore, violated: Violated) -> None:
        self._selection = selection
        self._store = store
        self._violated = violated

    def run(self, exchange: Exchange) -> Outcome:
        return count(exchange, self._selection, self._store, self._violated)


class ChargeAddress(OnRefusal):
    """Charges a 401 to the address that it came from: whoever guesses tokens runs into a 429."""

    def __init__(self, selection: Selection, store: LimitStore, violated: Violated) -> None:
        self._selection = selection
        self._store = store
        self._violated = violated

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if not isinstance(error, errors.Unauthorized):
            return None
        return count(exchange, self._selection, self._store, self._violated)


def count(exchange: Exchange, selection: Selection, store: LimitStore, violated: Violated) -> Waiting | None:
    """Count an exchange against the limits that apply to it. Raises ``GatewayError`` where one refuses it."""
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
        tell(exchange, store.check(checks, exchange.started_at), violated)
        return None
    decision = store.ask(checks, partial(_told, exchange, violated))
    if isinstance(decision, Pending):
        return decision
    tell(exchange, decision, violated)
    return None


def _told(exchange: Exchange, violated: Violated, outcome: Counted) -> None:
    """Redis has answered, or has failed to."""
    try:
        if isinstance(outcome, errors.LimitsUnavailable):
            raise outcome
        tell(exchange, outcome, violated)
    except GatewayError as error:
        exchange.fail(error)
    else:
        exchange.resume(None)
