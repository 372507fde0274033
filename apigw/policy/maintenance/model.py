"""The configuration of maintenance."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config, Route


@frozen
class Maintenance:
    retry_after: float = 60.0


@frozen
class MaintenanceOf:
    """Of a route or a service."""

    maintenance: bool | Maintenance = False

    @property
    def held(self) -> Maintenance | None:
        if isinstance(self.maintenance, Maintenance):
            return self.maintenance
        return Maintenance() if self.maintenance else None


def services_of(config: Config) -> dict[str, Maintenance]:
    """The services that are under maintenance."""
    found = ((service.name, service.of(MaintenanceOf).held) for service in config.services)
    return {name: held for name, held in found if held is not None}


def maintenance_of(services: dict[str, Maintenance], route: Route) -> Maintenance | None:
    """That of the route, or else of its service. ``services`` are ``services_of`` the configuration."""
    return route.of(MaintenanceOf).held or services.get(route.service or "")
