"""Plans: of several limits for one route or endpoint, which counts for whom. From the YAML to the stages, in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

from apigw import errors
from apigw.contract.principal import Principal
from apigw.policy.limits.arithmetic import compile_limit
from apigw.policy.limits.model import LimitsSection

AUTH = {"jwt": [{"name": "main", "algorithm": "HS256", "secret": "0123456789abcdef0123456789abcdef"}]}
HOUR = {"window": "1h", "by": ["principal"]}


def gateway(directory: Path, *limits: dict[str, Any], **route: Any) -> Routed:
    """With routes ``/orders/*`` and ``/other`` for anybody, and these limits at the top."""
    directory.mkdir(exist_ok=True)
    orders = {"path": "/orders/*", "name": "orders", "service": "main", "auth": "optional", **route}
    other = {"path": "/other", "service": "main", "auth": "optional"}
    return Routed(directory, orders, other, auth=AUTH, rate_limits=list(limits))


def caller(id: str = "ada", *roles: str, provider: str = "main", **claims: Any) -> Principal:
    principal = Principal(provider, id, roles)
    principal.document = json.dumps(claims).encode()
    return principal


GOLD, SILVER, NOBODY = caller("gold", "gold"), caller("silver", "silver", "user"), caller("nobody")


def passed(
    routed: Routed,
    principal: Principal | None = None,
    *headers: tuple[bytes, bytes],
    to: str = "/orders/1",
    **more: Any,
) -> int:
    """How many requests pass of nine."""
    number = 0
    for _ in range(9):
        try:
            routed.walked(routed.exchange(to, *headers, principal=principal, **more))
        except errors.RateLimited:
            break
        number += 1
    return number


@pytest.mark.parametrize("place", [{"route": "orders"}, {"endpoint": "/orders/*"}, {"endpoint": "/orders/:id"}])
def test_the_first_plan_that_fits_counts(tmp_path: Path, place: dict[str, str]) -> None:
    """In the order of the files, each caller for himself; who fits none has what is for everybody."""
    routed = gateway(
        tmp_path,
        {**place, "roles": ["gold"], "limit": 5, **HOUR},
        {**place, "roles": ["silver", "gold"], "limit": 3, **HOUR},
        {**place, "limit": 7, **HOUR},
    )
    assert [passed(routed, each) for each in (GOLD, SILVER, NOBODY, None)] == [5, 3, 7, 7]
    assert passed(routed, caller("both", "silver", "gold")) == 5
    assert passed(routed, to="/other") == 9


def test_a_plan_may_be_for_everybody_else(tmp_path: Path) -> None:
    """It needs a name, and comes last."""
    routed = gateway(
        tmp_path,
        {"route": "orders", "plan": "best", "roles": ["gold"], "limit": 5, **HOUR},
        {"route": "orders", "plan": "others", "limit": 2, **HOUR},
    )
    assert [passed(routed, each) for each in (GOLD, SILVER, None)] == [5, 2, 2]


def test_a_plan_has_several_windows_and_kinds(tmp_path: Path) -> None:
    """Entries with the same conditions are one plan, wherever they stand."""
    routed = gateway(
        tmp_path,
        {"route": "orders", "roles": ["gold"], "limit": 6, **HOUR},
        {"route": "orders", "roles": ["silver"], "limit": 1, **HOUR},
        {"route": "orders", "roles": ["gold"], "limit": 4, "window": "1m", "by": ["principal"]},
        {"route": "orders", "roles": ["gold"], "concurrent": 3, "by": ["principal"]},
    )
    assert [passed(routed, each) for each in (GOLD, SILVER)] == [3, 1]
    for _ in range(3):
        exchange = routed.exchange("/orders/1", principal=caller("other", "gold"))
        routed.walked(exchange)
        for each in exchange.at_end:
            each.run(exchange)
    assert passed(routed, caller("other", "gold")) == 1


@pytest.mark.parametrize(
    ("who", "fits", "others"),
    [
        ({"roles": ["gold"]}, caller("a", "x", "gold"), [caller("a", "Gold"), caller("a"), None]),
        ({"claims": {"tier": "gold"}}, caller(tier=["x", "gold"]), [caller(tier="silver"), caller(tier={"gold": 1})]),
        ({"claims": {"org.tier": [1, 2]}}, caller(org={"tier": 2}), [caller(org={"tier": True}), caller(org=[2])]),
        ({"providers": ["main"]}, caller(), [caller(provider="other"), None]),
        ({"principals": ["ada", "bob"]}, caller("bob"), [caller("eve"), None]),
        ({"principals": ["ada"], "roles": ["gold"]}, caller("ada", "gold"), [caller("ada"), caller("bob", "gold")]),
    ],
)
def test_whom_a_plan_fits(tmp_path: Path, who: dict[str, Any], fits: Principal, others: list[Principal | None]) -> None:
    """All that it names must fit; claims are compared as those of routes, and nobody is an anonymous caller."""
    routed = gateway(tmp_path, {"route": "orders", **who, "limit": 2, **HOUR})
    assert passed(routed, fits) == 2
    assert [passed(routed, other) for other in others] == [9] * len(others)


@pytest.mark.parametrize(
    ("condition", "fits", "other"),
    [
        ({"X-Plan": "gold"}, [(b"x-plan", b"gold")], [(b"x-plan", b"golden")]),
        ({"X-Plan": "gold"}, [(b"x-plan", b"a"), (b"x-plan", b"gold")], []),
        ({"X-Plan": {"present": False}}, [], [(b"x-plan", b"gold")]),
        ({"X-Plan": {"regex": "g.*"}}, [(b"x-plan", b"gold")], [(b"x-plan", b"a gold")]),
    ],
)
def test_plans_by_header(tmp_path: Path, condition: dict[str, Any], fits: Any, other: Any) -> None:
    """As conditions of routes; also for anonymous callers."""
    routed = gateway(tmp_path, {"route": "orders", "headers": condition, "limit": 2, **HOUR})
    assert passed(routed, None, *fits) == 2
    assert passed(routed, caller("another"), *other) == 9


def test_what_may_be_a_secret_is_no_part_of_a_plans_name(tmp_path: Path) -> None:
    """Metrics, the log and answers show the name. Two plans that are shown alike are two, in force and as a dry run."""
    limits = [
        {"route": "orders", "headers": {"X-Key": value}, "limit": number, "dry_run": dry, **HOUR}
        for dry in (False, True)
        for value, number in (("hunter2", 2), ("hunter3", 3))
    ]
    routed = gateway(tmp_path, *limits)
    rates = [compile_limit(each) for each in routed.config.of(LimitsSection).rate_limits]
    assert {each.endpoint for each in rates} == {"route orders (header x-key is '…')"}
    assert len({each.id for each in rates}) == 4
    assert [passed(routed, GOLD, (b"x-key", value)) for value in (b"hunter2", b"hunter3")] == [2, 3]


def test_each_place_has_its_plans(tmp_path: Path) -> None:
    """Plans of a route and of an endpoint are chosen apart, and both count; so are those of hosts."""
    routed = gateway(
        tmp_path,
        {"route": "orders", "roles": ["gold"], "limit": 5, **HOUR},
        {"endpoint": "/orders/1", "roles": ["silver", "gold"], "limit": 4, **HOUR},
        {"endpoint": "/orders/1", "hosts": ["shop.example"], "roles": ["gold"], "limit": 2, **HOUR},
    )
    assert passed(routed, GOLD) == 2
    assert passed(routed, GOLD, host=b"other.example") == 2
    assert passed(routed, GOLD, to="/orders/2") == 1
    assert passed(routed, SILVER) == 4
    assert passed(routed, SILVER, to="/orders/2") == 9


def test_limits_beside_a_route(tmp_path: Path) -> None:
    """They are those of its name: all its paths count together, and two routes of one name."""
    beside = [{"limit": 4, **HOUR}]
    routed = gateway(tmp_path / "paths", path=["/orders/*", "/old-orders"], rate_limits=beside)
    assert [passed(routed), passed(routed, to="/old-orders")] == [4, 0]
    (tmp_path / "methods").mkdir()
    both = [
        {"path": "/a", "methods": [method], "service": "main", "rate_limits": beside, "auth": "none"}
        for method in ("GET", "PUT")
    ]
    routed = Routed(tmp_path / "methods", *both)
    assert [passed(routed, to="/a"), passed(routed, to="/a", method=b"PUT")] == [4, 0]


def test_a_default_gives_each_route_its_own_count(tmp_path: Path) -> None:
    """A route that has limits of its own has those in its place."""
    routes = [{"path": path, "service": "main"} for path in ("/a", "/b")]
    own = {"path": "/c", "service": "main", "rate_limits": [{"limit": 1, **HOUR}]}
    default = {"route": {"rate_limits": [{"limit": 2, **HOUR}]}}
    routed = Routed(tmp_path, *routes, own, defaults=default)
    assert [passed(routed, to=path) for path in ("/a", "/b", "/c", "/a")] == [2, 2, 1, 0]


def refused(routed: Routed, *headers: tuple[bytes, bytes]) -> int:
    """The status of a request whose credential is wrong."""
    exchange = routed.exchange("/orders/1", *headers)
    try:
        for each in exchange.route.on_refusal:
            each.run(exchange, errors.Unauthorized("A bad token.", [], "signature"))
    except errors.GatewayError as error:
        return error.status
    return 401


def test_a_401_counts_in_the_plan_of_nobody(tmp_path: Path) -> None:
    """In that of an anonymous caller, if it counts by address alone: guesses end, and callers with a plan do not."""
    address = {"window": "1h", "by": ["address"]}
    routed = gateway(
        tmp_path,
        {"route": "orders", "roles": ["gold"], "limit": 5, **address},
        {"route": "orders", "headers": {"X-Plan": "a"}, "limit": 3, **HOUR},
        {"route": "orders", "plan": "others", "limit": 2, **address},
    )
    assert [refused(routed) for _ in range(3)] == [401, 401, 429]
    assert [refused(routed, (b"x-plan", b"a")) for _ in range(4)] == [401] * 4
    assert routed.exchange("/orders/1").route.screens == ()
    assert passed(routed, GOLD) == 5


def test_a_route_without_plans_has_the_stages_that_it_had(tmp_path: Path) -> None:
    """What nobody uses costs nothing."""
    routed = gateway(tmp_path, {"route": "orders", "roles": ["gold"], "limit": 5, **HOUR})
    stages = [[type(stage).__name__ for stage in routed.exchange(to).route.stages] for to in ("/orders/1", "/other")]
    assert [("CountAndClaim" in each, "Count" in each) for each in stages] == [(True, False), (False, False)]
