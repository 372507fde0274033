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
