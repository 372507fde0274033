"""What the gateway is asked to do in a run, as data, and what each may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen

from bench import tokens
from bench.programs import HOST, REDIS, Document, Place, Program

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


def with_jwt(place: Place) -> Document:
    """The same route, which now wants a token; the key that verifies it is written beside the configuration."""
    (place.directory / "token.pem").write_bytes(tokens.public_key())
    verifier = {"name": "bench", "algorithm": "RS256", "public_key_file": "token.pem", "issuer": tokens.ISSUER}
    return {**document(place, [{**USER_ROUTE, "roles": ["user"]}]), "auth": {"jwt": [verifier]}}


def with_limit(place: Place) -> Document:
    """The same route, with one limit by address that nobody reaches."""
    limits = [{"endpoint": "/api/v1/*", "limit": 1_000_000_000, "window": "1h", "scope": "ip"}]
    return {**document(place), "rate_limits": limits}


def with_shared_limit(place: Place) -> Document:
    """That limit counted in Redis, which is the second of the programs behind the gateway."""
    origin, redis = place.origins
    return {**with_limit(evolve(place, origins=(origin,))), "redis": {"url": f"redis://{HOST}:{redis}/0"}}


def _no_authorization() -> tuple[str, ...]:
    return ()


@frozen
class Scenario:
    """A gateway's configuration and the request that is sent through it.

    ``authorizations`` gives values of ``Authorization``, which are sent in turn; it is called where it is needed.
    ``beside`` are programs that the gateway needs: they run on the load's core, and their ports follow the origin's.
    """

    name: str
    config: Callable[[Place], Document]
    path: str = "/api/v1/users/42"
    headers: tuple[tuple[str, str], ...] = HEADERS
    authorizations: Callable[[], tuple[str, ...]] = _no_authorization
    beside: tuple[Program, ...] = ()


BARE = Scenario("bare", document)
SCENARIOS = (
    BARE,
    Scenario("routes-10000", lambda place: document(place, many_routes(10_000))),
    Scenario("access-log", lambda place: document(place, access_log={"file": "access.log", "format": "json"})),
    Scenario("jwt", with_jwt, authorizations=tokens.authorizations),
    Scenario("jwt-first-seen", with_jwt, authorizations=lambda: tokens.authorizations(tokens.MANY)),
    Scenario("limits-memory", with_limit),
    Scenario("limits-redis", with_shared_limit, beside=(REDIS,)),
)
DEFAULT = ("bare", "routes-10000", "access-log", "jwt", "jwt-first-seen", "limits-memory", "limits-redis")


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


@frozen
class Added:
    """``scenario`` may cost at most ``most`` n more than ``over``; n is what nginx spends on a bare proxied request."""

    scenario: str
    over: str
    most: float


ADDED = (
    Added("access-log", "bare", 0.5),
    Added("jwt", "bare", 0.25),
    Added("limits-memory", "bare", 0.2),
    Added("limits-redis", "bare", 0.9),
)
