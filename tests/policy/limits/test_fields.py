"""What answers say of limits: the usual fields, those of the IETF's draft, both, or none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.routed import Routed

from apigw import errors
from apigw.contract.principal import Principal
from apigw.policy.limits.arithmetic import HEADERS
from apigw.policy.limits.fields import DRAFT

from .test_plans import AUTH, GOLD, HOUR

STRING = r'"[^"\\\x00-\x1f\x7f-\xff]*"'
POLICY = re.compile(rf'{STRING};q=[0-9]+(;w=[1-9][0-9]*|;qu="concurrent-requests")')
LIMITS = [
    {"route": "orders", "roles": ["gold"], "limit": 2, **HOUR},
    {"endpoint": "/orders/*", "limit": 5, "window": "1500ms", "scope": "endpoint"},
    {"route": "orders", "concurrent": 20, "by": ["address", {"header": "X-App"}]},
]


def gateway(directory: Path, fields: str, *limits: dict[str, Any]) -> Routed:
    route = {"path": "/orders/*", "name": "orders", "service": "main", "auth": "optional"}
    settings = {"rate_limit_fields": fields}
    return Routed(directory, route, auth=AUTH, rate_limits=limits or LIMITS, gateway=settings)


def said(routed: Routed, principal: Principal | None = GOLD) -> tuple[dict[str, str], frozenset[bytes]]:
    """What an answer gets, and loses of the service's."""
    exchange = routed.exchange("/orders/1", principal=principal)
    try:
        routed.walked(exchange)
    except errors.RateLimited as error:
        added = [*exchange.added, *error.headers]
    else:
        added = exchange.added
    return {name.decode(): value.decode("ascii") for name, value in added}, frozenset(exchange.dropped)


@pytest.mark.parametrize(
    ("fields", "usual", "draft"),
    [("usual", True, False), ("draft", False, True), ("both", True, True), ("none", False, False)],
)
def test_fields(tmp_path: Path, fields: str, usual: bool, draft: bool) -> None:
    """Those that are said replace the service's, and no others; a refusal has ``Retry-After`` in any case."""
    routed = gateway(tmp_path, fields)
    for allowed in (True, True, False):
        found, dropped = said(routed)
        assert ("x-ratelimit-limit" in found, "ratelimit" in found) == (usual, draft)
        assert ("ratelimit-policy" in found) is draft
        assert (dropped >= HEADERS, dropped >= DRAFT) == (usual, draft)
        assert ("retry-after" in found) is not allowed


def test_the_draft(tmp_path: Path) -> None:
    """All limits of the request as policies, the tightest with what is left, and for how long that is all."""
    routed = gateway(tmp_path, "draft")
    found, _ = said(routed)
    policies = found["ratelimit-policy"].split(", ")
    assert policies == [
        '"/orders/* in 1500ms";q=5;w=2',
        '"route orders (role gold) by principal in 1h";q=2;w=3600',
        '"route orders by address',
        'header x-app at a time";q=20;qu="concurrent-requests"',
    ]
    assert found["ratelimit"] == '"route orders (role gold) by principal in 1h";r=1;t=3600'
    said(routed)
    found, _ = said(routed)
    assert found["ratelimit"] == '"route orders (role gold) by principal in 1h";r=0;t=3600'
    assert found["retry-after"] == "3600"
    found, _ = said(routed, None)
    assert found["ratelimit"].startswith('"/orders/* in 1500ms";r=')


def test_only_places(tmp_path: Path) -> None:
    """A limit of what runs at a time is a policy, and has no number that is left."""
    found, dropped = said(gateway(tmp_path, "draft", {"route": "orders", "concurrent": 20, "by": ["address"]}))
    assert found == {"ratelimit-policy": '"route orders by address at a time";q=20;qu="concurrent-requests"'}
    assert dropped >= DRAFT


@pytest.mark.parametrize("role", ['a"b', "a\\b", "J\u00f6rg", "100%", "a;q=1", "\u65e5\u672c", "x" * 200])
def test_names_are_strings_of_structured_fields(tmp_path: Path, role: str) -> None:
    """Whatever stands in the configuration (RFC 9651 §3.3.3), and different for different names."""
    routed = gateway(tmp_path, "draft", {"route": "orders", "roles": [role], "limit": 2, **HOUR})
    found, _ = said(routed, Principal("main", "ada", (role,)))
    assert POLICY.fullmatch(found["ratelimit-policy"])
    assert re.fullmatch(rf"{STRING};r=1;t=3600", found["ratelimit"])


def test_a_limit_that_does_not_apply_says_nothing(tmp_path: Path) -> None:
    """Nor does it take the service's own fields away."""
    routed = gateway(tmp_path, "draft", {"route": "orders", "roles": ["gold"], "limit": 2, **HOUR})
    found, dropped = said(routed, None)
    assert found == {}
    assert not dropped & DRAFT
