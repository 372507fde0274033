"""What the gateway is asked to do in a run, as data, and what each may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from bench.programs import HOST, Document, Place

# What curl sends; wrk adds Host.
HEADERS = (("User-Agent", "bench"), ("Accept", "*/*"))
USER_ROUTE = {"path": "/api/v1/users/:id", "service": "origin", "methods": ["GET", "PUT", "DELETE"]}


def document(place: Place, routes: Sequence[Document] = (USER_ROUTE,), **gateway: Any) -> dict[str, Any]:
    """A configuration with one service, whose targets are all the origins of ``place``. Keywords go to ``gateway:``."""
    return {
        "gateway": {
            "listen": [f"tcp:{place.port}:interface={HOST}"],
            "admin": None,
            "access_log": None,
            **gateway,
        },
        "services": {"origin": {"targets": [f"http://{HOST}:{port}" for port in place.origins]}},
        "routes": list(routes),
    }


def many_routes(count: int) -> list[Document]:
    """``count`` routes of three shapes under as many prefixes, with the measured one in the middle."""
    shapes = ("/api/v1/things{}", "/api/v1/things{}/:id", "/api/v1/things{}/:id/parts/:part")
    routes: list[Document] = [
        {"path": shapes[number % 3].format(number // 3), "service": "origin"} for number in range(count - 1)
    ]
    routes.insert(count // 2, USER_ROUTE)
    return routes


@frozen
class Scenario:
    """A gateway's configuration and the request that is sent through it."""

    name: str
    config: Callable[[Place], Document]
    path: str = "/api/v1/users/42"
    headers: tuple[tuple[str, str], ...] = HEADERS


BARE = Scenario("bare", document)
SCENARIOS = (
    BARE,
    Scenario("routes-10000", lambda place: document(place, many_routes(10_000))),
    Scenario("access-log", lambda place: document(place, access_log={"file": "access.log", "format": "json"})),
)
DEFAULT = ("bare", "routes-10000")


@frozen
class Target:
    """CPU per request of ``scenario`` may be at most ``most`` times that of ``against``: a neighbour, or a scenario."""

    scenario: str
    against: str
    most: float


TARGETS = (
    Target("bare", "nginx", 3.0),
    Target("routes-10000", "bare", 1.05),
)
