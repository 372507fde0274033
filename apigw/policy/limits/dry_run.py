# Compiled: see docs/decisions/compiled.md
"""Dry runs: limits that are counted, and refuse nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.logger import Logger

from apigw.contract.exchange import Exchange, OnRefusal, Outcome, Stage, Waiting
from apigw.errors import GatewayError, LimitsUnavailable
from apigw.policy.limits.arithmetic import Decision, Limit
from apigw.policy.limits.concurrent import Claim, ConcurrentLimit
from apigw.policy.limits.in_redis import Outcome as Counted
from apigw.policy.limits.in_redis import Pending
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.plans import Plans
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.selection import Selection
from apigw.policy.limits.stage import Counting, OfRoute, Violated, charged, is_turned_away

LOGGED_EVERY: Final = 60.0
"""Seconds between two lines for one limit."""

log = Logger(namespace=__name__)


class WouldRefuse:
    """Told of each request that a limit would have refused: ``violated`` counts it, and the log has a line now and
    then. ``seconds`` is a monotonic clock."""

    def __init__(self, seconds: Callable[[], float], violated: Violated) -> None:
        self._seconds = seconds
        self._violated = violated
        self._said: dict[bytes, float] = {}
        self._unsaid: dict[bytes, int] = {}

    def __call__(self, limit: Quota) -> None:
        self._violated(limit)
        now, key = self._seconds(), limit.id
        number = self._unsaid.get(key, 0) + 1
        said = self._said.get(key)
        if said is not None and now - said < LOGGED_EVERY:
            self._unsaid[key] = number
            return
        self._said[key] = now
        self._unsaid[key] = 0
        sentence = (
            "dry run: the limit on {endpoint} by {scope} would have refused requests, since the last line: {number}"
        )
        log.info(sentence, endpoint=limit.endpoint, scope=limit.scope, number=number)


class DryRun(Stage):
    """Counts what the limits in force have let pass, each limit by itself. ``counting.violated`` is told what they
    would have refused. Nobody waits for Redis."""

    def __init__(self, limits: OfRoute, counting: Counting) -> None:
        self._limits = limits
        self._counting = counting

    def run(self, exchange: Exchange) -> Outcome:
        rates, concurrent = self._limits.of(exchange)
        for limit in rates:
            count(exchange, limit, self._counting)
        for places in concurrent:
            claim(exchange, places, self._counting)
        return None


class DryCharge(OnRefusal):
    """Counts a 401 as ``ChargeAddress`` does."""

    def __init__(self, selection: Selection[Limit], plans: Selection[Plans], counting: Counting) -> None:
        self._selection = selection
        self._plans = plans
        self._counting = counting

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if is_turned_away(error):
            for limit in charged(exchange, self._selection, self._plans):
                count(exchange, limit, self._counting)
        return None


def count(exchange: Exchange, limit: Limit, counting: Counting) -> None:
    store, key = counting.store, counting.callers.key(exchange, limit)
    if isinstance(store, LocalStore):
        _counted(limit, counting, store.check_one(limit, key, exchange.started_at))
        return
    try:
        asked = store.ask([(limit, key)], partial(_counted, limit, counting))
    except LimitsUnavailable:
        return
    if not isinstance(asked, Pending):
        _counted(limit, counting, asked)


def claim(exchange: Exchange, limit: ConcurrentLimit, counting: Counting) -> None:
    """Take a place, if there is one."""
    store, key = counting.store, counting.callers.key(exchange, limit)
    places = Claim([(limit, key)], store)
    exchange.at_end = (*exchange.at_end, places)
    if isinstance(store, LocalStore):
        store.admit([], places, exchange.started_at)
        _claimed(places, counting, None)
        return
    try:
        asked = store.ask([], partial(_claimed, places, counting), places)
    except LimitsUnavailable:
        return
    if not isinstance(asked, Pending):
        _claimed(places, counting, None)


def _counted(limit: Limit, counting: Counting, outcome: Counted) -> None:
    if isinstance(outcome, Decision) and not outcome.allowed:
        counting.violated(limit)


def _claimed(places: Claim, counting: Counting, outcome: Counted) -> None:
    if places.full is not None:
        counting.violated(places.full)
