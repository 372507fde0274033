"""What `apigw check` warns of: plans that are never reached, and limits that clients escape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

from .test_plans import AUTH, HOUR

TENANT: dict[str, Any] = {"limit": 5, "window": "1h", "by": [{"header": "X-Tenant"}]}


def warnings(directory: Path, *limits: dict[str, Any], more: tuple[dict[str, Any], ...] = ()) -> list[str]:
    """Those about limits, as path and sentence."""
    route = {"path": ["/orders/*", "/old"], "name": "orders", "service": "main", "auth": "optional"}
    auth = {**AUTH, "api_keys": list(more)} if more else AUTH
    found = Routed(directory, route, auth=auth, rate_limits=list(limits)).config.warnings
    return [str(each).partition("rate_limits")[2] for each in found if "rate_limits" in str(each)]


def plan(**rest: Any) -> dict[str, Any]:
    return {"route": "orders", "limit": 5, **HOUR, **rest}


@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [
        ({"plan": "all"}, {"roles": ["gold"]}, False),
        ({"roles": ["gold"]}, {"plan": "all"}, True),
        ({"roles": ["gold", "silver"]}, {"roles": ["gold"]}, False),
        ({"roles": ["gold"]}, {"roles": ["gold", "silver"]}, True),
        ({"roles": ["gold"]}, {"roles": ["gold"], "claims": {"a": 1}}, False),
        ({"claims": {"a": 1}}, {"claims": {"a": 1, "b": 2}}, False),
        ({"claims": {"a": 1}}, {"claims": {"a": True}}, True),
        ({"claims": {"a": [1, 2]}}, {"claims": {"b": 1}}, True),
        ({"headers": {"X-A": "1"}}, {"headers": {"x-a": {"equal": "1"}}, "roles": ["gold"]}, False),
        ({"headers": {"X-A": "1"}}, {"headers": {"X-A": "2"}}, True),
        ({"plan": "all"}, {"roles": ["gold"], "route": None, "endpoint": "/old"}, True),
    ],
)
def test_plans_that_are_never_reached(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], reached: bool
) -> None:
    """Where an earlier one takes all its callers; of a dry run it says that it would."""
    later = {key: value for key, value in plan(**second).items() if value is not None}
    found = warnings(tmp_path, plan(**first), later)
    expected = f"[1].route: is never reached: the plan at {tmp_path}/gateway.yaml:1:"
    assert [each.startswith(expected) for each in found] == ([] if reached else [True])
    found = warnings(tmp_path, plan(**first, dry_run=True), later)
    assert ["would never be reached" in each for each in found] == ([] if reached else [True])


@pytest.mark.parametrize(
    ("beside", "warned"),
    [
        ([], True),
        ([{"route": "orders", "limit": 50, "window": "1h", "by": ["address"]}], False),
        ([{"route": "orders", "limit": 50, "window": "1h", "by": ["address"], "dry_run": True}], True),
        ([{"route": "orders", "limit": 50, "window": "1h", "by": ["address"], "plan": "all"}], True),
        ([{"endpoint": "/*", "limit": 50, "window": "1h", "scope": "user"}], False),
        ([{"endpoint": "/*", "concurrent": 5, "scope": "endpoint"}], False),
        ([{"endpoint": "/*", "hosts": ["a.test"], "limit": 50, "window": "1h", "scope": "ip"}], True),
        ([{"endpoint": "/orders/*", "limit": 50, "window": "1h", "scope": "ip"}], True),
    ],
)
def test_limits_that_clients_escape(tmp_path: Path, beside: list[dict[str, Any]], warned: bool) -> None:
    """By another value of a header with each request, where no limit without one holds for all that it counts."""
    found = warnings(tmp_path, {"route": "orders", **TENANT}, *beside)
    said = "[0].by: counts by x-tenant, and clients can send another value with each request: write a second limit"
    assert [each.startswith(said) for each in found] == ([True] if warned else [])


def test_the_address_beside_a_header_changes_nothing(tmp_path: Path) -> None:
    """Each value of the header has a count of its own all the same; a claim is not chosen by clients."""
    mixed = {**TENANT, "route": "orders", "by": ["address", {"header": "X-Tenant"}]}
    assert len(warnings(tmp_path, mixed)) == 1
    assert warnings(tmp_path, {**TENANT, "route": "orders", "by": [{"claim": "tenant"}]}) == []
    assert warnings(tmp_path, {**mixed, "dry_run": True}) == []


@pytest.mark.parametrize(
    ("limit", "route", "auth", "said"),
    [
        ({"scope": "user"}, {"auth": "none"}, True, "scope: {}the route needs no authentication"),
        ({"by": ["address", {"claim": "tenant"}]}, {"auth": "none"}, True, "by: {}the route needs no authentication"),
        (
            {"scope": "user", "route": None, "endpoint": "/*"},
            {"auth": "none"},
            True,
            "scope: {}no route needs authentication",
        ),
        ({"scope": "user"}, {}, False, "scope: {}there is no auth section"),
        ({"scope": "user"}, {"auth": "optional"}, True, None),
        ({"scope": "ip"}, {"auth": "none"}, True, None),
        ({"by": [{"header": "X-Tenant"}, "address"]}, {}, False, None),
    ],
)
def test_callers_that_nobody_is(
    tmp_path: Path, limit: dict[str, Any], route: dict[str, Any], auth: bool, said: str | None
) -> None:
    """Where nobody shows who he is, a limit for each user is one for each address."""
    written = {key: value for key, value in {"route": "orders", "limit": 5, "window": "1h", **limit}.items() if value}
    found = Routed(
        tmp_path,
        {"path": "/orders", "name": "orders", "service": "main", **route},
        rate_limits=[written],
        **({"auth": AUTH} if auth else {}),
    ).config.warnings
    expected = said and f"rate_limits[0].{said.format('counts by address, as nobody is known: ')}"
    assert [str(each).partition(": ")[2] for each in found if "counts by address" in str(each)] == (
        [expected] if expected else []
    )


def test_ids_of_several_providers(tmp_path: Path) -> None:
    """Another provider may know somebody else by the same id."""
    keys = tmp_path / "partners.keys"
    keys.write_text(f"{64 * '0'}\tacme\t\t\t\n")
    keys.chmod(0o600)
    several = ({"name": "partners", "file": "partners.keys"},)
    (found,) = warnings(tmp_path, plan(principals=["acme"]), more=several)
    assert found.startswith("[0].principals: are those of every provider (main, partners)")
    assert warnings(tmp_path, plan(principals=["acme"], providers=["partners"]), more=several) == []
    assert warnings(tmp_path, plan(principals=["acme"])) == []
