"""The policy of routes and services under maintenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.config.rules import Rules
from apigw.config.units import duration_text
from apigw.contract.policy import NOTHING, Part, Policy, Prepared
from apigw.policy.maintenance.model import Maintenance, maintenance_of, services_of
from apigw.policy.maintenance.schema import KEYS
from apigw.policy.maintenance.stage import UnderMaintenance


def told(config: Config, route: RouteConfig, path: bytes) -> Iterator[tuple[str, str]]:
    held = maintenance_of(services_of(config), route)
    if held is not None:
        yield "maintenance", f"503, with Retry-After {duration_text(held.retry_after)}"


class MaintenancePolicy(Policy):
    name = "maintenance"
    rules = Rules(keys=KEYS, told=(told,))

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedMaintenance:
        return PreparedMaintenance(services_of(config))


class PreparedMaintenance(Prepared):
    """``services`` are those under maintenance."""

    def __init__(self, services: dict[str, Maintenance]) -> None:
        self._services = services

    def part(self, route: RouteConfig) -> Part:
        held = maintenance_of(self._services, route)
        return NOTHING if held is None else Part(stages={"access": UnderMaintenance(ceil(held.retry_after))})
