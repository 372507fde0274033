# Compiled: see docs/decisions/compiled.md
"""A choice among services, which a policy makes for each exchange of a route."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from apigw.contract.exchange import Exchange


@mypyc_attr(allow_interpreted_subclasses=True)
class Choice:
    """Chooses one of several ``services``, by their names, for each exchange of a route. It runs after the route's
    stages."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self.services = services

    def choose(self, exchange: Exchange) -> int:
        """The number of the service in ``services``. Raises as ``Stage.run`` does."""
        raise NotImplementedError


class Chooser:
    """May choose before others do: the service of a route that has several, and the target of a service."""

    def service(self, exchange: Exchange, services: tuple[str, ...]) -> int:
        """The number of the service in ``services``; -1 to leave it to others. Raises as ``Stage.run`` does."""
        return -1

    def target(self, exchange: Exchange, targets: list[str]) -> int:
        """The same for the names of targets, all of which serve."""
        return -1
