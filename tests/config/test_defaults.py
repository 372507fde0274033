"""Defaults of routes and services: nearer wins, rules for headers merge, and what is wrong is told once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.config.merge import read
from apigw.config.model import Config
from apigw.config.show import show
from apigw.policy.auth.model import AuthOfRoute
from apigw.policy.auth.rules import refuse
from apigw.policy.transform.model import transform_of
from apigw.process.rules import RULES

Write = Callable[[Mapping[str, str | bytes]], str]

SHOP = """\
defaults: {route: {service: shop, timeout: 2s, hosts: [shop.test]}, service: {timeout: 9s}}
services: {shop: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /shop}, {path: /cart, timeout: 3s}]
"""
TOP = """\
defaults:
  route: {timeout: 1s, max_body_size: 1KiB}
  service: {timeout: 8s, connect_timeout: 1s}
services: {main: {targets: ["http://127.0.0.1:2"], connect_timeout: 2s}}
routes:
  - {path: /main, service: main, max_body_size: null}
  - {path: /old, redirect: {to: /main}}
"""


def loaded(write: Write, files: Mapping[str, str | bytes]) -> Config:
    return load(write(files), {}, RULES)


def problems(write: Write, files: Mapping[str, str | bytes]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(write, files)
    return [str(problem).removeprefix("etc/") for problem in caught.value.problems]


def test_nearer_wins(write: Write) -> None:
    """The route's own key, then its file's default, then the one for all; null is a value."""
    config = loaded(write, {"gateway.yaml": TOP, "services/shop.yaml": SHOP})
    routes = {route.path: route for route in config.routes}
    assert {path: route.timeout for path, route in routes.items()} == {"/main": 1, "/old": 1, "/shop": 2, "/cart": 3}
    assert routes["/main"].max_body_size is None and routes["/shop"].max_body_size == 1024
    assert routes["/shop"].hosts == ("shop.test",) and routes["/main"].hosts == ()
    assert routes["/shop"].name == "shop.test/shop"
    services = {service.name: service for service in config.services}
    assert (services["shop"].timeout, services["main"].timeout) == (9, 8)
    assert (services["shop"].connect_timeout, services["main"].connect_timeout) == (1, 2)


def test_null_takes_a_default_back(write: Write) -> None:
    """For every key: the route is as if nobody had written it. Without a default null is a mistake as before."""
    defaults = (
        "defaults: {route: {hosts: [a.test], headers: {X-A: '1'}, request_headers: {set: {X-B: b}}, timeout: 2s}}\n"
    )
    shop = """\
services: {shop: {targets: ["http://127.0.0.1:1"]}}
routes:
  - {path: /a, service: shop, hosts: null, headers: null, request_headers: null, timeout: null}
  - {path: /b, service: shop}
"""
    config = loaded(write, {"gateway.yaml": defaults, "services/shop.yaml": shop})
    one, other = config.routes
    assert (one.hosts, one.headers, one.timeout) == ((), (), None)
    assert (other.hosts, len(other.headers), other.timeout) == (("a.test",), 1, 2)
    assert [bool(transform_of(route).request_headers.written) for route in (one, other)] == [False, True]
    assert problems(write, {"gateway.yaml": shop.replace("hosts: null", "hosts: null, query: null")})


def test_a_default_service_is_for_routes_without_another_answer(write: Write) -> None:
    """A redirect in a file with a default service is a redirect."""
    text = 'defaults: {route: {service: a}}\nservices: {a: {targets: ["http://127.0.0.1:1"]}}\n'
    config = loaded(write, {"gateway.yaml": text + "routes: [{path: /a}, {path: /b, redirect: {to: /a}}]\n"})
    assert [route.service for route in config.routes] == ["a", None]


def test_rules_for_headers_merge_by_name(write: Write) -> None:
    """A rule of the route takes the place of a default for the same header, whatever both do; others stay."""
    text = """\
defaults:
  route: {request_headers: {set: {X-A: default, X-B: default}, remove: [X-C, X-D]}}
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes:
  - {path: /a, service: a, request_headers: {set: {x-a: own, X-C: own}, remove: [X-E]}}
  - {path: /b, service: a}
"""
    directory = write({"gateway.yaml": text})
    document = read(directory, {}, RULES.schema)
    first, second = document.tree["routes"]
    assert first["request_headers"] == {"set": {"X-B": "default", "x-a": "own", "X-C": "own"}, "remove": ["X-E", "X-D"]}
    assert second["request_headers"] == {"set": {"X-A": "default", "X-B": "default"}, "remove": ["X-C", "X-D"]}
    load(directory, {}, RULES)


def test_show_prints_what_holds_with_its_place(write: Write) -> None:
    """Where a value of a route comes from is told, be it a default of another file."""
    shown = show(read(write({"gateway.yaml": TOP, "services/shop.yaml": SHOP}), {}, RULES.schema))
    assert '    timeout: "2s"  # etc/services/shop.yaml:1:' in shown
    assert '    max_body_size: "1KiB"  # etc/gateway.yaml:2:39\n' in shown


def test_mistakes_are_told_once(write: Write) -> None:
    """A wrong default of a thousand routes is one problem, at its place; so is one that nothing uses."""
    top = """\
defaults:
  route: {auth: maybe, tiemout: 1s, path: /x, request_headers: {set: {Host: a}}}
  service: {targets: []}
  rout: {}
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /a, service: a}, {path: /b, service: a}]
"""
    local = "defaults: {route: {name: x}, service: {timeout: never}, x: {}}\n"
    said = problems(write, {"gateway.yaml": top, "services/a.yaml": local})
    assert said == [
        "gateway.yaml:2:17: defaults.route.auth: 'maybe' is not one of required, optional, none",
        "gateway.yaml:2:24: defaults.route.tiemout: is an unknown key; did you mean 'timeout'?",
        "gateway.yaml:2:37: defaults.route.path: is an unknown key; did you mean 'auth'?",
        said[3],
        "gateway.yaml:3:13: defaults.service.targets: is an unknown key",
        "gateway.yaml:4:3: defaults.rout: is an unknown key; did you mean 'route'?",
        "services/a.yaml:1:12: defaults.route: has no effect: there are no routes in this file",
        "services/a.yaml:1:20: defaults.route.name: is an unknown key",
        "services/a.yaml:1:30: defaults.service: has no effect: there are no services in this file",
        "services/a.yaml:1:57: defaults.x: is an unknown key: it has route and service",
    ]
    assert said[3].startswith("gateway.yaml:2:71: defaults.route.request_headers.set.Host: ")


@pytest.mark.parametrize(
    "text", ["defaults: 3", "defaults: [route]", "defaults: {route: 3}", "defaults: {service: [a]}"]
)
def test_defaults_that_are_no_maps(write: Write, text: str) -> None:
    """Any other value is refused, at the top and in a file of services/."""
    top = 'services: {a: {targets: ["http://127.0.0.1:1"]}}\nroutes: [{path: /a, service: a}]\n'
    assert len(problems(write, {"gateway.yaml": f"{text}\n{top}"})) == 1
    assert len(problems(write, {"gateway.yaml": top, "services/b.yaml": text})) == 1


AUTH = 'auth: {jwt: [{name: a, algorithm: HS256, secret: "0123456789012345678901234567890123456789", issuer: a}]}\n'
PLAIN = 'services: {a: {targets: ["http://127.0.0.1:1"]}}\nroutes: [{path: /a, service: a}]\n'


def test_auth_default_beside_a_default(write: Write) -> None:
    """Both say what holds for a route that says nothing."""
    text = f"gateway: {{auth_default: none}}\ndefaults: {{route: {{auth: required}}}}\n{AUTH}{PLAIN}"
    (said,) = problems(write, {"gateway.yaml": text})
    assert said == (
        "gateway.yaml:2:20: defaults.route.auth: says the same as gateway.auth_default at etc/gateway.yaml:1:11: "
        "leave one out"
    )


def test_a_reload_without_auth_looks_at_what_holds(write: Write) -> None:
    """Authentication goes only where it is said, by a default or by each route, that no route needs it."""
    old = loaded(write, {"gateway.yaml": f"defaults: {{route: {{auth: required}}}}\n{AUTH}{PLAIN}"})
    assert old.routes[0].of(AuthOfRoute).auth == "required"
    dropped = loaded(write, {"gateway.yaml": PLAIN})
    meant = loaded(write, {"gateway.yaml": f"defaults: {{route: {{auth: none}}}}\n{PLAIN}"})
    assert len(list(refuse(old, dropped))) == 1
    assert list(refuse(old, meant)) == []
