"""``apigw routes`` without a request: every route, with what it demands."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from apigw.config.model import Config, Route
from apigw.process.rules import RULES
from apigw.routing.configured import conditions_of

HEAD = ("HOSTS", "PATH", "METHODS", "SERVICE", "DEMANDS")


def listed(config: Config) -> Iterator[str]:
    """Lines of a table, in the order of the files."""
    rows = [HEAD, *(_row(config, route) for route in config.routes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    for *cells, last in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last]).rstrip()


def _row(config: Config, route: Route) -> tuple[str, ...]:
    methods = "all" if route.methods is None else ",".join(route.methods)
    path = route.path if route.name.endswith(route.path) else f"{route.path} ({route.name})"
    return ",".join(route.hosts) or "-", path, methods, route.service or "-", "; ".join(_demands(config, route))


def _demands(config: Config, route: Route) -> Iterator[str]:
    conditions = conditions_of(route)
    if conditions is not None:
        yield f"if {conditions}"
    for told in RULES.told:
        # Parameters stand for themselves: so a redirect is shown as it is written.
        for name, value in told(config, route, quote(route.path, safe="/:*%").encode("ascii")):
            yield f"{name}: {value}"
