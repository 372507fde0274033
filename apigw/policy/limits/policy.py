"""Rate limits as a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apigw.config.errors import ConfigError, problem_in
from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Part, Policy, Prepared
from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.model import rate_limits_of
from apigw.policy.limits.selection import select
from apigw.policy.limits.stage import ChargeAddress, Count, LimitStore, Violated
from apigw.routing.pattern import Pattern


class LimitsPolicy(Policy):
    name = "limits"

    def __init__(self, store: LimitStore, violated: Violated) -> None:
        self.store = store
        self._violated = violated

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedLimits:
        return PreparedLimits(config, self.store, self._violated)


class PreparedLimits(Prepared):
    def __init__(self, config: Config, store: LimitStore, violated: Violated) -> None:
        self.limits = compile_limits(config)
        """All of them, in the order of the configuration."""
        self._store = store
        self._violated = violated

    def part(self, route: RouteConfig) -> Part:
        selected = select(self.limits, Pattern.parse(route.path))
        if not selected:
            return NOTHING
        of_addresses = selected.of_addresses()
        charge = (ChargeAddress(of_addresses, self._store, self._violated),) if of_addresses else ()
        return Part(stages={"limit": Count(selected, self._store, self._violated)}, on_refusal=charge)


def compile_limits(config: Config) -> tuple[Limit, ...]:
    """Raises ``ConfigError`` for one that cannot be kept."""
    limits = []
    for index, limit in enumerate(rate_limits_of(config)):
        try:
            limits.append(compile_limit(limit))
        except ValueError as error:
            raise ConfigError([problem_in(config, ("rate_limits", index), f"cannot be kept: {error}")]) from None
    return tuple(limits)
