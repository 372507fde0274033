"""From a configuration to what requests meet: defaults resolved, and what is the same kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.parts import parts_of

from apigw.config.errors import ConfigError
from apigw.config.model import Config, Gateway, Origin, Route, Service, Target, UpstreamTLS
from apigw.config.model import Path as ConfigPath
from apigw.contract.exchange import Route as CompiledRoute
from apigw.policy.cors.cors import Preflight
from apigw.policy.cors.model import Cors, CorsOfRoute
from apigw.process.snapshot import Snapshot, compile
from apigw.proxy.destination import Destination
from apigw.proxy.forward import HoldBody


def destination(route: CompiledRoute) -> Destination:
    """Where its requests go, as the first of the stages that forward them is told."""
    (hold,) = [stage for stage in route.stages if isinstance(stage, HoldBody)]
    return hold.destination


MAIN = Service("main", (Target("http", "127.0.0.1", 9001),))
OTHER = Service("other", (Target("http", "127.0.0.1", 9002),))


def config(*routes: Route, services: tuple[Service, ...] = (MAIN, OTHER), **gateway: Any) -> Config:
    return Config(gateway=Gateway(**gateway), services=services, routes=routes)


def compiled(config: Config, previous: Snapshot | None = None) -> Snapshot:
    return compile(config, previous, parts_of(Config()))


@pytest.mark.parametrize(
    ("of_gateway", "of_service", "of_route", "seconds"),
    [(30.0, None, None, 30.0), (30.0, 5.0, None, 5.0), (30.0, 5.0, 1.0, 1.0), (30.0, None, 1.0, 1.0)],
)
def test_the_narrowest_timeout_holds(
    of_gateway: float, of_service: float | None, of_route: float | None, seconds: float
) -> None:
    """A timeout that was set for one route does not hold there."""
    services = (evolve(MAIN, timeout=of_service),)
    made = compiled(config(Route("/a", "main", timeout=of_route), services=services, request_timeout=of_gateway))
    assert destination(made.routes[0]).timeout == seconds


def test_a_route_may_lift_the_limit_of_bodies() -> None:
    """`max_body_size: null` on a route is taken for "as everywhere"."""
    made = compiled(
        config(Route("/a", "main"), Route("/b", "main", max_body_size=None), Route("/c", "main", max_body_size=7))
    )
    assert [destination(route).max_body_size for route in made.routes] == [100 * 1024 * 1024, None, 7]


def test_the_router_leads_to_what_was_compiled() -> None:
    """A route's settings belong to another route."""
    made = compiled(config(Route("/a", "main", methods=("GET",)), Route("/a", "other", methods=("POST",))))
    for method, name in ((b"GET", "main"), (b"HEAD", "main"), (b"POST", "other")):
        match = made.table.router.match(method, b"/a")
        assert match is not None
        assert (match.value.service, destination(match.value).upstream.name) == (name, name)
    assert made.table.router.match(b"PUT", b"/a") is None


def test_a_route_that_demands_nothing_has_no_stages_but_those_that_forward() -> None:
    """Nobody pays for a policy that no route has."""
    made = compiled(config(Route("/a", "main")))
    assert len(made.routes[0].stages) == 2
    assert made.table.own is None


def test_preflights_are_answered_where_some_route_has_cors() -> None:
    """The shape of a route with ``cors`` answers OPTIONS, and so does every route that serves OPTIONS."""
    added = (CorsOfRoute(Cors(("*",))),)
    made = compiled(config(Route("/a", "main"), Route("/b", "main", methods=("GET",), added=added)))
    assert made.table.own is not None
    assert made.table.own.match(b"OPTIONS", b"/b") is not None
    assert made.table.own.match(b"OPTIONS", b"/a") is None
    assert [type(route.stages[0]) for route in made.routes] == [Preflight, HoldBody]


def test_what_is_the_same_is_kept() -> None:
    """A reload closes every connection to every service."""
    first = compiled(config(Route("/a", "main")))
    second = compiled(config(Route("/b", "main"), keepalive_timeout=5.0), first)
    assert list(second.upstreams.values()) == list(first.upstreams.values())
    changed = (evolve(MAIN, connect_timeout=1.0), OTHER)
    third = compiled(config(Route("/b", "main"), services=changed), second)
    before, after = ({upstream.name: upstream for upstream in one.upstreams.values()} for one in (second, third))
    assert after["main"] is not before["main"]
    assert after["other"] is before["other"]
    assert len(second.upstreams) == 2  # which was not touched


def test_a_service_whose_files_changed_is_made_anew(tmp_path: Path) -> None:
    """A renewed authority is not trusted until the gateway is restarted."""
    file = tmp_path / "ca.pem"
    file.write_text("one")
    services = (evolve(MAIN, tls=UpstreamTLS(ca_file=str(file))), OTHER)
    first = compiled(config(services=services))
    second = compiled(config(services=services), first)
    assert list(second.upstreams.values()) == list(first.upstreams.values())
    file.write_text("two")
    third = compiled(config(services=services), second)
    kept = set(third.upstreams.values()) & set(second.upstreams.values())
    assert {upstream.name for upstream in kept} == {"other"}


def test_every_service_that_cannot_be_set_up_is_named(tmp_path: Path) -> None:
    """Of two broken services an operator learns of the first, then of the second."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    services = (
        evolve(MAIN, tls=UpstreamTLS(ca_file=str(tmp_path / "missing.pem"))),
        evolve(OTHER, targets=(Target("https", "a.test", 443),), tls=UpstreamTLS(ca_file=str(nonsense))),
    )
    origins: dict[ConfigPath, Origin] = {("services", "main"): Origin("a.yaml", 3, 5)}
    with pytest.raises(ConfigError) as raised:
        compiled(evolve(config(services=services), origins=origins))
    first, second = raised.value.problems
    assert str(first).startswith("a.yaml:3:5: services.main: cannot be set up: ")
    assert "missing.pem" in str(first)
    assert str(second).startswith("services.other: cannot be set up: ")


def test_the_limits_of_the_wire() -> None:
    """A limit that was configured does not hold."""
    settings = compiled(
        config(
            client_header_timeout=1.0,
            client_body_timeout=2.0,
            keepalive_timeout=3.0,
            max_header_size=4,
            max_header_count=5,
            max_connections=6,
        )
    ).settings
    assert (settings.client_header_timeout, settings.client_body_timeout, settings.keepalive_timeout) == (1.0, 2.0, 3.0)
    assert (settings.max_header_size, settings.max_header_count, settings.max_connections) == (4, 5, 6)
