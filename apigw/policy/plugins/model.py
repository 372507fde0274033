"""The configuration of plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from apigw.config.model import Config, Route
from apigw.policy.plugins.loading import Code, Place


@frozen
class Plugin:
    """One entry of ``plugins``. ``place`` and ``code`` are those of the class, as it was found."""

    name: str
    policy: str
    with_: Mapping[str, Any] = field(factory=dict, hash=False, repr=False)
    on_error: str = "closed"
    timeout: float = 1.0
    place: Place | None = None
    code: Code | None = None
    directory: str = ""
    """Of the configuration."""


@frozen
class Plugins:
    """The section ``plugins``."""

    plugins: tuple[Plugin, ...] = ()


@frozen
class Use:
    """``use`` of the gateway, a service, or a route: names of plugins."""

    use: tuple[str, ...] = ()


def plugins_of(config: Config) -> tuple[Plugin, ...]:
    return config.of(Plugins).plugins


def used_by_services(config: Config) -> dict[str, tuple[str, ...]]:
    """What each service uses, without those that use nothing."""
    found = ((service.name, service.of(Use).use) for service in config.services)
    return {name: use for name, use in found if use}


def used_by(config: Config, services: Mapping[str, tuple[str, ...]], route: Route) -> tuple[str, ...]:
    """The plugins of a route, in their order: of the gateway, its service, itself. ``services``: what those use."""
    every = (*config.gateway.of(Use).use, *services.get(route.service or "", ()), *route.of(Use).use)
    return tuple(dict.fromkeys(every))
