"""What the gateway is asked to do in a run, as data, and what each may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen

from bench import certificates, nginx, tokens
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


LOG = {"file": "access.log", "format": "json"}


def _token(place: Place, algorithm: str = "RS256") -> Document:
    """Tokens are wanted; the key that verifies them is written beside the configuration."""
    (place.directory / "token.pem").write_bytes(tokens.public_key(algorithm))
    verifier = {"name": "bench", "algorithm": algorithm, "public_key_file": "token.pem", "issuer": tokens.ISSUER}
    return {"auth": {"jwt": [verifier]}}


def _limit(scope: str) -> Document:
    """One limit, which nobody reaches."""
    return {"rate_limits": [{"endpoint": "/api/v1/*", "limit": 1_000_000_000, "window": "1h", "scope": scope}]}


def with_jwt(place: Place) -> Document:
    """The same route, which now wants a token and a role."""
    return {**document(place, [{**USER_ROUTE, "roles": ["user"]}]), **_token(place)}


def with_limit(place: Place) -> Document:
    """The same route, with a limit by address."""
    return {**document(place), **_limit("ip")}


def with_user_limit(place: Place) -> Document:
    """The same route, with a token, and a limit for each user."""
    return {**document(place, [{**USER_ROUTE, "auth": "required"}]), **_token(place), **_limit("user")}


def with_plans(place: Place) -> Document:
    """The same, where the limit is the second of three plans."""
    (limit,) = _limit("user")["rate_limits"]
    plans = [{**limit, "roles": ["gold"]}, {**limit, "roles": ["user"]}, {**limit, "plan": "others"}]
    return {**with_user_limit(place), "rate_limits": plans}


def with_everything(place: Place, algorithm: str = "RS256") -> Document:
    """Every policy on: a parameter among 100 routes, a token, a role, a limit for each user, a breaker, and a JSON
    access log to a file. Metrics and request ids need no asking."""
    whole = document(place, [{**route, "roles": ["user"]} for route in many_routes(100)], access_log=LOG)
    whole["services"]["origin"]["circuit_breaker"] = {}
    return {**whole, **_token(place, algorithm), **_limit("user")}


def with_hosts(place: Place) -> Document:
    """10,000 routes over 1,000 hosts, one of which is that of the load."""
    hosts = [f"shop{number}.example.com" for number in range(999)]
    hosts.insert(500, HOST)
    paths = [route["path"] for route in many_routes(10)]
    return document(place, [{"hosts": [host], "path": path, "service": "origin"} for host in hosts for path in paths])


def with_rules(place: Place) -> Document:
    """The same route, with five rules for headers."""
    rules = {
        "request_headers": {"set": {"X-Tenant": "acme", "X-Request": "{request.id}"}, "remove": ["X-Debug"]},
        "response_headers": {"set": {"Strict-Transport-Security": "max-age=31536000"}, "remove": ["Server"]},
    }
    return document(place, [{**USER_ROUTE, **rules}])


def with_least_requests(place: Place) -> Document:
    """The same route, to the less busy of two targets."""
    whole = document(place)
    whole["services"]["origin"]["balance"] = "least_requests"
    return whole


def with_tls(place: Place) -> Document:
    """The same route over TLS, by HTTP/2 or HTTP/1.1 as the client likes."""
    for name, text in certificates.files().items():
        (place.directory / name).write_text(text)
    pair = {"cert_file": "cert.pem", "key_file": "key.pem"}
    endpoint = f"tcp:{place.port}:interface={HOST}"
    return document(place, listen=[{"endpoint": endpoint, "tls": {"certificates": [pair]}}])


def with_traces(place: Place, sample: str) -> Document:
    """The same route, with this share of traces. The origin is the collector, too: it answers everything with 200."""
    return {**document(place), "tracing": {"otlp": f"http://{HOST}:{place.origins[0]}", "sample": sample}}


def with_long_queue(place: Place) -> Document:
    """The same route, with a queue for as many requests as there may be connections: by default it ends at 1,024."""
    whole = document(place)
    whole["services"]["origin"]["max_pending"] = 100_000
    return whole


def in_redis(config: Callable[[Place], Document]) -> Callable[[Place], Document]:
    """Limits are counted in Redis, which is the second of the programs behind the gateway."""

    def shared(place: Place) -> Document:
        origin, redis = place.origins
        return {**config(evolve(place, origins=(origin,))), "redis": {"url": f"redis://{HOST}:{redis}/0"}}

    return shared


def _no_authorization() -> tuple[str, ...]:
    return ()


def _first_seen() -> tuple[str, ...]:
    return tokens.authorizations(tokens.MANY)


def _first_seen_es256() -> tuple[str, ...]:
    return tokens.authorizations(tokens.MANY, "ES256")


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
ROUTES = tuple(
    Scenario(f"routes-{count}", lambda place, count=count: document(place, many_routes(count)))  # type: ignore[misc]
    for count in (10, 100, 1_000, 10_000)
)
ALL = Scenario("all", with_everything, authorizations=tokens.authorizations)
ALL_FIRST_SEEN = Scenario("all-first-seen", with_everything, authorizations=_first_seen)
ALL_ES256 = Scenario(
    "all-es256-first-seen", lambda place: with_everything(place, "ES256"), authorizations=_first_seen_es256
)
ALL_REDIS = Scenario("all-redis", in_redis(with_everything), authorizations=tokens.authorizations, beside=(REDIS,))
TLS = Scenario("tls", with_tls)
LONG_QUEUE = Scenario("long-queue", with_long_queue)
OTHERS = (nginx.ORIGIN,) * 3
ROUTING = (
    Scenario("hosts", with_hosts),
    Scenario("five-rules", with_rules),
    Scenario("round-robin", document, beside=OTHERS),
    Scenario("least-requests", with_least_requests, beside=OTHERS),
)
COMPARED = (
    BARE,
    ROUTES[-1],
    Scenario("access-log", lambda place: document(place, access_log=LOG)),
    Scenario("jwt", with_jwt, authorizations=tokens.authorizations),
    Scenario("jwt-first-seen", with_jwt, authorizations=_first_seen),
    Scenario("limits-memory", with_limit),
    Scenario("limits-redis", in_redis(with_limit), beside=(REDIS,)),
    Scenario("unsampled", lambda place: with_traces(place, "0%")),
    Scenario("traced", lambda place: with_traces(place, "100%")),
    ALL,
    ALL_FIRST_SEEN,
    ALL_ES256,
    ALL_REDIS,
)
USER_LIMIT = Scenario("limit-user", with_user_limit, authorizations=tokens.authorizations)
PLANS = Scenario("plans", with_plans, authorizations=tokens.authorizations)
SCENARIOS = (*COMPARED, *ROUTES[:-1], *ROUTING, TLS, LONG_QUEUE, USER_LIMIT, PLANS)


@frozen
class Target:
    """CPU per request of ``scenario`` may be at most ``most`` times that of ``against``: a neighbour, or a scenario."""

    scenario: str
    against: str
    most: float


TARGETS = (
    Target("bare", "nginx", 3.0),
    Target("bare", "nginx", 2.2),
    Target("bare", "express-gateway", 0.08),
    Target("all", "envoy all", 0.9),
    Target("all-first-seen", "envoy all-first-seen", 1.0),
    Target("all-es256-first-seen", "envoy all-es256-first-seen", 1.0),
    Target("all-redis", "nginx", 5.0),
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
    Added("unsampled", "bare", 0.02),
    Added("traced", "bare", 0.2),
    Added("limits-memory", "bare", 0.2),
    Added("limits-redis", "bare", 0.9),
    Added("plans", "limit-user", 0.05),
    Added("hosts", "bare", 0.05),
    Added("five-rules", "bare", 0.06),
    Added("least-requests", "round-robin", 0.03),
)
