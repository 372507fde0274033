"""What is said of routes that are never reached, and of weaker ones that take what a stronger one lets fall."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from apigw.config.model import Condition, Config, Route
from apigw.policy.auth.model import AuthOfRoute
from apigw.policy.limits.model import LimitsSection, RateLimit
from apigw.process.rules import RULES
from apigw.routing.review import review

OPEN = AuthOfRoute("none")
ADMIN = AuthOfRoute("required", ("admin",))


def route(path: str, auth: AuthOfRoute = OPEN, **more: Any) -> Route:
    return Route(path, "a", added=(auth,), **more)


def claimed(**claims: Any) -> AuthOfRoute:
    return AuthOfRoute("required", claims=tuple(claims.items()))


def said(*routes: Route) -> Iterator[str]:
    for problem in review(Config(routes=routes), RULES):
        yield f"{problem.path[1] if len(problem.path) > 1 else 0} {problem.sentence}"


def header(name: str, **wanted: Any) -> dict[str, Any]:
    return {"headers": (Condition(name, **wanted),)}


@pytest.mark.parametrize(
    ("routes", "sentences"),
    [
        # Another method.
        (
            [route("/*"), route("/c/:id", ADMIN, methods=("GET",))],
            ["1 any other method is taken by the route at routes[0], which needs no authentication: write strict_met"],
        ),
        (
            [route("/c/*", methods=("DELETE",)), route("/c/:id", ADMIN, methods=("GET",))],
            ["1 DELETE is taken by the route at routes[0], which needs no authentication: write strict_methods: true"],
        ),
        (
            [route("/*"), route("/c/:id", ADMIN, methods=("GET",), strict_methods=True)],
            ["1 /c/:id/ is taken by the route at routes[0], which needs no authentication: write a route for it"],
        ),
        ([route("/*", ADMIN), route("/c/:id", ADMIN, methods=("GET",))], []),
        ([route("/*"), route("/c/:id", methods=("GET",))], []),
        ([route("/*", methods=("HEAD",)), route("/c/:id", ADMIN, methods=("GET",))], []),
        ([route("/c/:x", methods=("PUT",)), route("/c/:id", ADMIN, methods=("GET",))], []),
        # Without what its conditions demand.
        (
            [route("/a"), route("/a", ADMIN, **header("X-Version", equal="2"))],
            ["1 a request that does not meet its conditions is taken by the route at routes[0], which needs no"],
        ),
        (
            [route("/*"), route("/a/*", ADMIN, **header("X-Version", equal="2"))],
            ["1 a request that does not meet its conditions is taken by the route at routes[0], which needs no"],
        ),
        ([route("/a", ADMIN), route("/a", **header("X-Version", equal="2"))], []),
        ([route("/a", ADMIN), route("/a", ADMIN, **header("X-Version", equal="2"))], []),
        ([route("/*"), route("/a/*", ADMIN, **header("X-Version", present=False))], []),
        # Another role, no role, no scope.
        (
            [route("/*", AuthOfRoute("required", ("user",))), route("/a/b", ADMIN, methods=("GET",))],
            ["1 any other method is taken by the route at routes[0], which lets other roles pass: user: write strict"],
        ),
        (
            [route("/*", AuthOfRoute("optional")), route("/a/*", ADMIN, methods=("GET",))],
            ["1 any other method is taken by the route at routes[0], which lets anonymous callers pass: write strict"],
        ),
        # Another provider, another claim; with demands, `optional` lets nobody pass without a credential.
        (
            [route("/*", AuthOfRoute("required")), route("/a", AuthOfRoute("required", providers=("staff",)))],
            ["1 /a/ is taken by the route at routes[0], which takes the credentials of every provider: write a route"],
        ),
        (
            [
                route("/*", AuthOfRoute("required", providers=("staff", "guests"))),
                route("/a", AuthOfRoute("required", providers=("staff",))),
            ],
            ["1 /a/ is taken by the route at routes[0], which takes the credentials of other providers: guests: write"],
        ),
        (
            [route("/*", AuthOfRoute("required")), route("/a", claimed(tenant="acme"))],
            ["1 /a/ is taken by the route at routes[0], which does not demand the claim tenant: write a route for it"],
        ),
        (
            [route("/*", claimed(level=True)), route("/a", claimed(level=(1, 2)))],
            ["1 /a/ is taken by the route at routes[0], which lets other values of the claim level pass: write a rou"],
        ),
        ([route("/*", claimed(level=1)), route("/a", claimed(level=(1, 2)))], []),
        ([route("/*", AuthOfRoute("optional", ("admin",))), route("/a", ADMIN)], []),
        # Another slash at the end.
        (
            [route("/*"), route("/one", ADMIN)],
            ["1 /one/ is taken by the route at routes[0], which needs no authentication: write a route for it"],
        ),
        (
            [route("/:x"), route("/one/", ADMIN)],
            ["1 /one is taken by the route at routes[0], which needs no authentication: write a route for it"],
        ),
        ([route("/*"), route("/one", ADMIN), route("/one/", ADMIN)], []),
        # Another host.
        ([route("/*", hosts=("b.test",)), route("/one", ADMIN, hosts=("a.test",))], []),
        (
            [route("/*", hosts=("*.test",)), route("/one", ADMIN, hosts=("*.test", "a.other"))],
            ["1 /one/ is taken by the route at routes[0], which needs no authentication: write a route for it"],
        ),
        # An encoded slash.
        (
            [route("/api/*", encoded_slashes="keep"), route("/api/admin/*", ADMIN)],
            ["1 with an encoded slash is taken by the route at routes[0], which needs no authentication"],
        ),
        # Never reached.
        (
            [route("/a", **header("X", present=True)), route("/a", **header("x", equal="1"))],
            ["1 can never be reached: the route at routes[0] takes all its requests"],
        ),
        ([route("/a", **header("x", equal="1")), route("/a", **header("X", present=True))], []),
        ([route("/a", **header("X", present=True)), route("/a", **header("x", present=False))], []),
        ([route("/a", methods=("GET",), **header("X", present=True)), route("/a", **header("x", equal="1"))], []),
        (
            [route("/a/*"), route("/a/"), route("/a/:x"), route("/a/:x/*")],
            ["0 can never be reached: other routes, such as /a/:x/*, take its requests"],
        ),
        ([route("/a/*"), route("/a/:x"), route("/a/:x/*")], []),
    ],
)
def test_warnings(routes: list[Route], sentences: list[str]) -> None:
    """An operator hears of each, with the place of the other route."""
    found = list(said(*routes))
    assert len(found) == len(sentences)
    for sentence, beginning in zip(found, sentences, strict=True):
        assert sentence.startswith(beginning)


def limit(endpoint: str, number: int = 10, **more: Any) -> RateLimit:
    return RateLimit(endpoint, number, 60.0, scope="ip", **more)


@pytest.mark.parametrize(
    ("limits", "routes", "escapes"),
    [
        ([limit("/search")], [route("/*"), route("/search")], "/search/"),
        ([limit("/search/")], [route("/*"), route("/search/")], "/search"),
        ([limit("/search"), limit("/search/")], [route("/*"), route("/search")], ""),
        ([limit("/search"), limit("/*")], [route("/*"), route("/search")], ""),
        ([limit("/search"), limit("/*", 1000)], [route("/*"), route("/search")], "/search/"),
        ([limit("/*")], [route("/*"), route("/search")], ""),
        ([limit("/search"), limit("unmatched")], [route("/search")], ""),  # which is 404
        ([limit("/search")], [route("/*"), route("/search"), route("/search/")], ""),  # as somebody has written
        ([limit("/search")], [route("/*"), route("/search", methods=("GET",))], "/search/"),
        ([limit("/search", hosts=("a.test",))], [route("/*"), route("/search", hosts=("b.test",))], ""),
        ([limit("/a/b/*")], [route("/a/*", encoded_slashes="keep"), route("/a/b/*")], "with an encoded slash"),
    ],
)
def test_requests_that_escape_a_limit(limits: list[RateLimit], routes: list[Route], escapes: str) -> None:
    """A limit on the path of a route does not hold for the path that almost is that, and that another route takes."""
    config = Config(routes=tuple(routes), added=(LimitsSection(tuple(limits)),))
    found = [problem.sentence for problem in review(config, RULES)]
    assert len(found) == bool(escapes)
    for sentence in found:
        assert sentence.startswith(
            f"{escapes} is taken by the route at routes[0], which escapes the limit on {limits[0].endpoint}"
        )


def test_a_thousand_warnings_are_cut() -> None:
    """Twenty are told, and the others counted."""
    found = list(said(route("/*"), *(route(f"/{number}", ADMIN) for number in range(1000))))
    assert len(found) == 21
    assert found[-1].endswith("980 more routes have such warnings")
