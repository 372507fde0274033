"""Plans of partners with API keys and of users with tokens, in one gateway, as they and operators meet them."""

from __future__ import annotations

from typing import Any

import pytest
from support.asking import admin_of, asked, command, metrics
from support.daemon import Daemon, Document, gateway
from support.samples import value
from support.services import Service
from support.waiting import eventually

from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys.records import Record, digest_of, new_key

from .conftest import Start
from .test_limits import SECRET, of, token

KEYS = {name: new_key() for name in ("acme", "small", "other")}
ROLES = {"acme": ("gold",), "small": (), "other": ()}
HOUR: dict[str, Any] = {"window": "1h", "by": ["principal"]}
PLANS: list[Document] = [
    {"route": "orders", "plan": "gold", "roles": ["gold"], "limit": 4, **HOUR},
    {"route": "orders", "plan": "small", "providers": ["partners"], "principals": ["small"], "limit": 2, **HOUR},
    {"route": "orders", "plan": "users", "claims": {"tier": "free"}, "limit": 3, **HOUR, "by": [{"claim": "org"}]},
    {"route": "orders", "plan": "others", "limit": 1, **HOUR},
    {"route": "orders", "plan": "gold", "roles": ["gold"], "limit": 3, **HOUR, "dry_run": True},
]


@pytest.fixture(scope="module")
def document(module_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Document:
    keys = tmp_path_factory.mktemp("keys") / "partners.keys"
    for name, key in KEYS.items():
        editing.add(str(keys), Record(digest_of(key.encode()), name, ROLES[name]))
    document = gateway(
        services={"main": module_service.url},
        routes=[
            {"path": ["/orders/*", "/v1/orders/*"], "name": "orders", "service": "main", "auth": "optional"},
            {"path": "/beside", "service": "main", "rate_limits": [{"limit": 1, "window": "1h", "by": ["address"]}]},
        ],
        trusted_proxies=["127.0.0.1/32"],
        rate_limit_fields="both",
        auth_default="none",
    )
    document["auth"] = {
        "api_keys": [{"name": "partners", "file": str(keys)}],
        "jwt": [{"name": "id", "algorithm": "HS256", "secret": SECRET}],
    }
    document["rate_limits"] = PLANS
    return document


@pytest.fixture(scope="module")
def daemon(in_front: Start, document: Document) -> Daemon:
    return in_front(document)


def statuses(daemon: Daemon, *headers: str, times: int = 1, target: str = "/orders/1") -> list[int]:
    with daemon.connect() as client:
        return [client.get(target, *headers).status for _ in range(times)]


def key(name: str) -> str:
    return f"X-API-Key: {KEYS[name]}"


def user(subject: str, **claims: Any) -> str:
    return f"Authorization: Bearer {token(subject, **claims)}"


def test_each_caller_has_a_plan(daemon: Daemon, document: Document) -> None:
    """By role, by the id of a key, by a claim, or that of all others; a reload keeps what was counted."""
    assert statuses(daemon, key("acme"), times=5) == [200] * 4 + [429]
    assert statuses(daemon, key("acme"), target="/v1/orders/2") == [429], "the other path of the route"
    assert statuses(daemon, key("small"), times=3) == [200, 200, 429]
    assert statuses(daemon, key("other"), times=2) == [200, 429]
    assert statuses(daemon, of("192.0.2.1"), times=2) == [200, 429]
    org = {"tier": ["free", "x"], "org": {"id": 7}}
    assert [statuses(daemon, user(name, **org))[0] for name in ("a", "b", "c", "d")] == [200, 200, 200, 429]
    assert statuses(daemon, user("e", tier="free", org="another")) == [200]
    assert statuses(daemon, user("small"), times=2) == [200, 429], "a token's small is not the partner"
    with daemon.connect() as client:
        answer = client.get("/orders/1", key("acme"))
    assert (answer.code, answer.get("x-ratelimit-limit")) == ("rate_limited", "4")
    assert answer.get("ratelimit-policy") == '"route orders (gold) by principal in 1h";q=4;w=3600'
    assert answer.get("ratelimit") == f'"route orders (gold) by principal in 1h";r=0;t={answer.get("retry-after")}'
    assert statuses(daemon, target="/beside", times=2) == [200, 429]

    wider = {"roles": ["gold", "platinum"]}
    raised = [{**PLANS[0], **wider, "limit": 6}, *PLANS[1:-1], {**PLANS[-1], **wider}]
    assert daemon.reload({**document, "rate_limits": raised})
    assert statuses(daemon, key("acme"), times=3) == [200, 200, 429]
    assert statuses(daemon, key("small")) == [429]


def test_operators_see_plans(daemon: Daemon, document: Document) -> None:
    """Who has which, what was refused, and what a dry run would have refused: metrics, `limits`, `routes`, `show`."""
    assert daemon.reload(document)
    statuses(daemon, key("acme"), times=7)
    dry = {"endpoint": "route orders (gold)", "kind": "rate", "scope": "user"}
    eventually(lambda: value(daemon, "gateway_rate_limit_dry_run_violations_total", **dry))
    assert value(daemon, "gateway_rate_limit_violations_total", **dry)
    assert "dry run: the limit on route orders (gold) by user would have refused" in daemon.log
    assert not any(secret in daemon.log + metrics(daemon) for secret in KEYS.values())
    (gold,) = [one for one in asked(daemon, "/limits")["limits"] if one.get("dry_run")]
    assert (gold["endpoint"], gold["plan"], gold["for"]) == ("route orders (gold)", "gold", "role gold")
    assert gold["violations"] > 0

    shown = command("limits", "--admin", admin_of(daemon)).stdout.splitlines()
    assert any(line.startswith("route orders (others)  user") for line in shown)
    assert any(line.startswith("route orders (users)   claim org") for line in shown)
    assert any(" 3 in 3600 s, dry run " in line for line in shown)
    assert any(line.startswith("route /beside          ip") for line in shown)

    told = command("routes", "GET", "/v1/orders/7", str(daemon.directory)).stdout.splitlines()
    assert [line.strip() for line in told if line.startswith(("  plan", "  limit"))] == [
        "plan: gold (role gold): 4 in 1h for each user (route orders)",
        "plan: gold (role gold): 3 in 1h for each user (route orders), a dry run: nothing is refused",
        "plan: else small (provider partners, principal small): 2 in 1h for each user (route orders)",
        "plan: else users (claim tier is free): 3 in 1h for each claim org (route orders)",
        "plan: else others (everybody): 1 in 1h for each user (route orders)",
    ]
    assert "principals:" in command("show", str(daemon.directory)).stdout
    checked = command("check", str(daemon.directory))
    assert checked.returncode == 0
