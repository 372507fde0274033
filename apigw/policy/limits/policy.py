"""The policy of rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.resource import IResource

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.ops.readiness import Check
from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.model import rate_limits_of
from apigw.policy.limits.resource import Limits
from apigw.policy.limits.rules import RULES
from apigw.policy.limits.selection import select
from apigw.policy.limits.series import LimitSeries
from apigw.policy.limits.stage import ChargeAddress, Count, LimitStore, RefuseSpent
from apigw.routing.pattern import Pattern


class LimitsPolicy(Policy):
    """Counts in Redis if it is configured, else in this process."""

    name = "limits"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._series = series = LimitSeries(context.metrics.registry)
        self._store: LimitStore
        if context.redis is None:
            self._store = MemoryStore(context.reactor, context.now)
        else:
            self._store = RedisStore(context.redis, context.reactor, context.now, series.store_up, series.fallback)

    def start(self) -> Deferred[None]:
        return self._store.start()

    def stop(self) -> Deferred[None]:
        return self._store.stop()

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedLimits:
        return PreparedLimits(config, self._store, self._series)


class PreparedLimits(Prepared):
    def __init__(self, config: Config, store: LimitStore, series: LimitSeries) -> None:
        self.limits = compile_limits(config)
        """All limits, in the order of the configuration."""
        self._store = store
        self._series = series

    def part(self, route: RouteConfig) -> Part:
        selected = select(self.limits, Pattern.parse(route.path))
        if not selected:
            return NOTHING
        violated, of_addresses = self._series.violated, selected.of_addresses()
        count = Count(selected, self._store, violated)
        if not of_addresses:
            return Part(stages={"limit": count})
        charge = ChargeAddress(of_addresses, self._store, violated)
        screen = RefuseSpent(of_addresses, self._store, violated)
        return Part(stages={"limit": count}, on_refusal=(charge,), screens=(screen,))

    def admin_resources(self) -> Mapping[str, IResource]:
        return {"/limits": Limits(self.limits, self._store, self._series)}

    def checks(self) -> Mapping[str, Check]:
        """``/ready`` depends on the store if a limit has ``on_store_failure: closed``."""
        if all(limit.on_store_failure != "closed" for limit in self.limits):
            return {}
        return {"rate limit store": self._usable}

    def keep_series(self) -> None:
        self._series.retain({(limit.endpoint, limit.scope) for limit in self.limits})

    def _usable(self) -> Deferred[object]:
        return succeed(None) if self._store.up else fail(RuntimeError("Redis cannot be used"))


def compile_limits(config: Config) -> tuple[Limit, ...]:
    """Compile all limits. Raises ``ConfigError`` for one that is out of range."""
    limits = []
    for index, limit in enumerate(rate_limits_of(config)):
        try:
            limits.append(compile_limit(limit))
        except ValueError as error:
            raise ConfigError([problem_in(config, ("rate_limits", index), f"cannot be kept: {error}")]) from None
    return tuple(limits)
