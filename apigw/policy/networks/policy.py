"""The policy of networks: which clients may call at all, by their addresses."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.contract.ranges import Ranges
from apigw.policy.networks.model import Networks
from apigw.policy.networks.rules import RULES
from apigw.policy.networks.series import refused_addresses
from apigw.policy.networks.stage import Admission, Admit


class NetworksPolicy(Policy):
    name = "networks"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._refused = refused_addresses(context.metrics.registry).inc

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Generator[None, None, Prepared]:
        """Compile each list once, however many routes have it."""
        of_gateway = config.gateway.of(Networks)
        ranges: dict[tuple[str, ...], Ranges] = {}
        admissions: dict[Networks, Admission] = {}
        for written in (Networks(), *(route.of(Networks) for route in config.routes)):
            yield
            both = (of_gateway, written)
            if written in admissions or not any(both):
                continue
            for networks in (*(each.allow for each in both), *(each.deny for each in both)):
                if networks and networks not in ranges:
                    ranges[networks] = made = Ranges()
                    yield from made.fill(networks)
            admissions[written] = Admission(
                [ranges[each.allow] for each in both if each.allow],
                [ranges[each.deny] for each in both if each.deny],
                self._refused,
            )
        return PreparedNetworks(admissions)


class PreparedNetworks(Prepared):
    """``admissions`` by what a route has; that of one which has nothing is the gateway's, if there is one."""

    def __init__(self, admissions: Mapping[Networks, Admission]) -> None:
        self._parts = {written: Part(stages={"access": Admit(each)}) for written, each in admissions.items()}
        self._of_gateway = admissions.get(Networks())

    def part(self, route: RouteConfig) -> Part:
        return self._parts.get(route.of(Networks), NOTHING)

    def unmatched(self) -> Part:
        return self._parts.get(Networks(), NOTHING)

    def admit(self, address: bytes, is_certain: bool) -> None:
        if self._of_gateway is not None:
            self._of_gateway.check(address, is_certain)
