"""The policy of external checks: another program decides whether a request may pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.policy.check.checker import MOST_BODY, Checker
from apigw.policy.check.model import Check, CheckOfRoute, ChecksSection
from apigw.policy.check.rules import RULES
from apigw.policy.check.series import CheckSeries
from apigw.policy.check.stage import CheckWith
from apigw.wire.fetch import Ask


class CheckPolicy(Policy):
    name = "check"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._ask = Ask(context.agent, MOST_BODY)
        self._clock = context.reactor
        self._series = CheckSeries(context.metrics.registry)

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedChecks:
        checks = config.of(ChecksSection).checks
        return PreparedChecks([Checker(check, self._ask, self._clock, self._series) for check in checks], self._series)


class PreparedChecks(Prepared):
    def __init__(self, checkers: list[Checker], series: CheckSeries) -> None:
        self.checkers = {each.check.name: each for each in checkers}
        self._series = series
        self._taken = frozenset(name for each in checkers for name in _lower(each.check.take))
        self._otherwise = Part(stripped=self._taken) if self._taken else NOTHING
        self._parts = {name: self._part(each.check, each) for name, each in self.checkers.items()}

    def part(self, route: RouteConfig) -> Part:
        name = route.of(CheckOfRoute).check_with
        return self._otherwise if name is None else self._parts[name]

    def adopt(self, previous: Prepared | None) -> None:
        if isinstance(previous, PreparedChecks) and previous is not self:
            for name, checker in self.checkers.items():
                before = previous.checkers.get(name)
                if before is not None and before.check == checker.check:
                    checker.take_over(before)

    def keep_series(self) -> None:
        self._series.retain(set(self.checkers))

    def _part(self, check: Check, checker: Checker) -> Part:
        stage = CheckWith(checker, _lower(check.send), frozenset(_lower(check.take)))
        return Part(stages={"after_auth": stage}, stripped=self._taken)


def _lower(names: tuple[str, ...]) -> list[bytes]:
    return [name.lower().encode("ascii") for name in names]
