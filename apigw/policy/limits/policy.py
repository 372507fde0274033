"""The policy of rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.resource import IResource

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.machine import Machine
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.ops.readiness import Check
from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.concurrent import ConcurrentLimit, compile_concurrent
from apigw.policy.limits.in_page import local_store
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.model import rate_limits_of
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.resource import Counted, Limits
from apigw.policy.limits.rules import RULES
from apigw.policy.limits.selection import select
from apigw.policy.limits.series import LimitSeries
from apigw.policy.limits.stage import ChargeAddress, Count, CountAndClaim, Counting, LimitStore, RefuseSpent
from apigw.routing.pattern import Pattern


class LimitsPolicy(Policy):
    """Counts in Redis if it is configured, else in memory: of all workers, if there are several."""

    name = "limits"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._machine = context.machine
        self._shared = context.page is not None
        self._series = series = LimitSeries(context.metrics.registry)
        local = local_store(context.page, context.reactor, context.now)
        self._store: LimitStore = local
        if context.redis is not None:
            self._store = RedisStore(
                context.redis, context.reactor, context.now, series.store_up, series.fallback, local=local
            )
        self._counting = Counting(self._store, Callers(), series.violated)

    def start(self) -> Deferred[None]:
        return self._store.start()

    def stop(self) -> Deferred[None]:
        return self._store.stop()

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedLimits:
        return PreparedLimits(config, self._counting, self._series, self._machine, self._shared)


class PreparedLimits(Prepared):
    def __init__(self, config: Config, counting: Counting, series: LimitSeries, machine: Machine, shared: bool) -> None:
        self._all = compile_limits(config)
        self._rates = tuple(each for each in self._all if isinstance(each, Limit))
        self._concurrent = tuple(each for each in self._all if isinstance(each, ConcurrentLimit))
        self._counting = counting
        self._series = series
        self._machine = machine
        self._shared = shared

    def part(self, route: RouteConfig) -> Part:
        return self._part(Pattern.parse(route.path), route.hosts)

    def unmatched(self) -> Part:
        return self._part(None)

    def _part(self, pattern: Pattern | None, hosts: tuple[str, ...] = ()) -> Part:
        rates, concurrent = select(self._rates, pattern, hosts), select(self._concurrent, pattern, hosts)
        if not rates and not concurrent:
            return NOTHING
        counting, of_addresses = self._counting, rates.of_addresses()
        stage = CountAndClaim(rates, concurrent, counting) if concurrent else Count(rates, counting)
        if not of_addresses:
            return Part(stages={"limit": stage})
        charge = ChargeAddress(of_addresses, counting)
        screen = RefuseSpent(of_addresses, counting)
        return Part(stages={"limit": stage}, on_refusal=(charge,), screens=(screen,))

    def admin_resources(self) -> Mapping[str, IResource]:
        return {"/limits": Limits(self._machine)}

    def adopt(self, previous: Prepared | None) -> None:
        self._machine.answers("limits", Counted(self._all, self._counting.store, self._series, self._shared).document)

    def checks(self) -> Mapping[str, Check]:
        """``/ready`` depends on the store if a limit has ``on_store_failure: closed``."""
        if all(limit.on_store_failure != "closed" for limit in self._all):
            return {}
        return {"rate limit store": self._usable}

    def keep_series(self) -> None:
        self._series.retain({limit.series for limit in self._all})

    def _usable(self) -> Deferred[object]:
        return succeed(None) if self._counting.store.up else fail(RuntimeError("Redis cannot be used"))


def compile_limits(config: Config) -> tuple[Quota, ...]:
    """Compile all limits, in the order of the configuration. Raises ``ConfigError`` for one that is out of range."""
    limits: list[Quota] = []
    for index, limit in enumerate(rate_limits_of(config)):
        try:
            limits.append(compile_limit(limit) if limit.concurrent is None else compile_concurrent(limit))
        except ValueError as error:
            raise ConfigError([problem_in(config, ("rate_limits", index), f"cannot be kept: {error}")]) from None
    return tuple(limits)
