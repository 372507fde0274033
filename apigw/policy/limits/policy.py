"""The policy of rate limits."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.resource import IResource

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config, Path
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import OnRefusal, Screen, Stage
from apigw.contract.machine import Machine
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.ops.readiness import Check
from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.concurrent import ConcurrentLimit, compile_concurrent
from apigw.policy.limits.dry_run import DryCharge, DryRun, WouldRefuse
from apigw.policy.limits.fields import Fields
from apigw.policy.limits.in_page import local_store
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.model import LimitsOfGateway, LimitsSection, RateLimit, beside
from apigw.policy.limits.plans import Plans, plans_of
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.resource import Counted, Limits
from apigw.policy.limits.rules import RULES
from apigw.policy.limits.selection import select
from apigw.policy.limits.series import Kept, LimitSeries
from apigw.policy.limits.stage import (
    ChargeAddress,
    Count,
    CountAndClaim,
    Counting,
    LimitStore,
    OfRoute,
    RefuseSpent,
)
from apigw.routing.pattern import Pattern


class LimitsPolicy(Policy):
    """Counts in Redis if it is configured, else in memory: of all workers, if there are several."""

    name = "limits"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._machine = context.machine
        self._shared = context.page is not None
        self._now = context.now
        self._series = series = LimitSeries(context.metrics.registry)
        local = local_store(context.page, context.reactor, context.now)
        self._store: LimitStore = local
        if context.redis is not None:
            self._store = RedisStore(
                context.redis, context.reactor, context.now, series.store_up, series.fallback, local=local
            )
        self._callers = Callers()
        self._would_refuse = WouldRefuse(context.seconds, series.violated)

    def start(self) -> Deferred[None]:
        return self._store.start()

    def stop(self) -> Deferred[None]:
        return self._store.stop()

    def prepare(
        self, config: Config, previous: Any, others: Mapping[str, Prepared]
    ) -> Generator[None, None, PreparedLimits]:
        limits = yield from compiling(config)
        kept = Kept()
        for limit in limits:
            self._series.begin(limit)
            kept.add(limit)
            yield
        in_force = yield from Sorted.sorting(limits, dry=False)
        dry_runs = yield from Sorted.sorting(limits, dry=True)
        told = config.gateway.of(LimitsOfGateway).rate_limit_fields
        fields = None if told == "usual" else Fields(told == "both", told in ("both", "draft"), self._now)
        counting = Counting(self._store, self._callers, self._series.violated, fields)
        dry = Counting(self._store, self._callers, self._would_refuse)
        return PreparedLimits(
            limits, in_force, dry_runs, counting, dry, self._series, kept, self._machine, self._shared
        )


class PreparedLimits(Prepared):
    def __init__(
        self,
        limits: tuple[Quota, ...],
        in_force: Sorted,
        dry_runs: Sorted,
        counting: Counting,
        dry: Counting,
        series: LimitSeries,
        kept: Kept,
        machine: Machine,
        shared: bool,
    ) -> None:
        self._all = limits
        self._in_force = in_force
        self._dry_runs = dry_runs
        self._counting = counting
        self._dry_counting = dry
        self._series = series
        self._kept = kept
        self._machine = machine
        self._shared = shared

    def part(self, route: RouteConfig) -> Part:
        return self._part(Pattern.parse(route.path), route.hosts, route.name)

    def unmatched(self) -> Part:
        return self._part(None)

    def _part(self, pattern: Pattern | None, hosts: tuple[str, ...] = (), name: str | None = None) -> Part:
        stages: dict[str, Stage] = {}
        on_refusal: list[OnRefusal] = []
        screens: tuple[Screen, ...] = ()
        found = self._in_force.of(pattern, hosts, name)
        if found:
            counting, addresses = self._counting, found.addresses
            plain = not found.concurrent and not found.plans
            stages["limit"] = Count(found.rates, counting) if plain else CountAndClaim(found, counting)
            if addresses or found.plans:
                on_refusal.append(ChargeAddress(addresses, counting, found.plans))
            if addresses:
                screens = (RefuseSpent(addresses, counting),)
        found = self._dry_runs.of(pattern, hosts, name)
        if found:
            stages["after_limit"] = DryRun(found, self._dry_counting)
            if found.addresses or found.plans:
                on_refusal.append(DryCharge(found.addresses, found.plans, self._dry_counting))
        return Part(stages=stages, on_refusal=tuple(on_refusal), screens=screens) if stages else NOTHING

    def admin_resources(self) -> Mapping[str, IResource]:
        return {"/limits": Limits(self._machine)}

    def adopt(self, previous: Prepared | None) -> None:
        counted = Counted(self._all, self._counting.store, self._series, self._shared)
        self._machine.answers("limits", counted.document)
        self._machine.counts("limits", counted.counts)

    def checks(self) -> Mapping[str, Check]:
        """``/ready`` depends on the store if a limit has ``on_store_failure: closed``."""
        if all(limit.on_store_failure != "closed" or limit.config.dry_run for limit in self._all):
            return {}
        return {"rate limit store": self._usable}

    def keep_series(self) -> None:
        self._series.retain(self._kept)

    def _usable(self) -> Deferred[object]:
        return succeed(None) if self._counting.store.up else fail(RuntimeError("Redis cannot be used"))


class Sorted:
    """Limits, by whether they are of plans, and by whether they name a route: there may be one for each of thousands of
    routes."""

    def __init__(self) -> None:
        self._matched = _Held()
        self._named: dict[str, _Held] = {}

    @classmethod
    def sorting(cls, limits: Sequence[Quota], dry: bool) -> Generator[None, None, Sorted]:
        """Of ``limits`` the dry runs, or those in force."""
        found = cls()
        planned: list[Quota] = []
        for limit in limits:
            if limit.config.who is not None:
                planned.append(limit)
            elif limit.config.dry_run is dry:
                held = found._of(limit.config)
                if isinstance(limit, Limit):
                    held.rates.append(limit)
                elif isinstance(limit, ConcurrentLimit):
                    held.concurrent.append(limit)
            yield
        for planned_there in plans_of(planned, dry):
            if planned_there is not None:
                place, plans = planned_there
                found._of(place).plans.append(plans)
            yield
        return found

    def of(self, pattern: Pattern | None, hosts: tuple[str, ...], name: str | None) -> OfRoute:
        """Those for a route, or for what matches no route."""
        matched, named = self._matched, _NONE if name is None else self._named.get(name, _NONE)
        return OfRoute(
            select(matched.rates, pattern, hosts).beside(named.rates),
            select(matched.concurrent, pattern, hosts).beside(named.concurrent),
            select(matched.plans, pattern, hosts).beside(named.plans),
        )

    def _of(self, config: RateLimit) -> _Held:
        return self._matched if config.route is None else self._named.setdefault(config.route, _Held())


@define
class _Held:
    rates: list[Limit] = Factory(list)
    concurrent: list[ConcurrentLimit] = Factory(list)
    plans: list[Plans] = Factory(list)


_NONE = _Held()


def compiling(config: Config) -> Generator[None, None, tuple[Quota, ...]]:
    """Compile all limits, in the order of the configuration. Raises ``ConfigError`` for one that is out of range."""
    limits: list[Quota] = []
    seen: set[str] = set()
    sets: Iterable[tuple[Path, tuple[RateLimit, ...]]] = chain(
        [(("rate_limits",), config.of(LimitsSection).rate_limits)],
        ((("routes", index, "rate_limits"), beside(route, seen)) for index, route in enumerate(config.routes)),
    )
    for path, held in sets:
        for index, limit in enumerate(held):
            try:
                limits.append(compile_limit(limit) if limit.concurrent is None else compile_concurrent(limit))
            except ValueError as error:
                raise ConfigError([problem_in(config, (*path, index), f"cannot be kept: {error}")]) from None
            yield
        yield
    return tuple(limits)
