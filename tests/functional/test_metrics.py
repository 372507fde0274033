"""What a real daemon counts, and of what it has series."""

from __future__ import annotations

import pytest
from support.asking import metrics
from support.client import Client
from support.daemon import Daemon, Document, gateway
from support.samples import counted, samples, value
from support.services import Service
from support.waiting import eventually

from .conftest import Start


def two(service: Service) -> Document:
    services = dict.fromkeys(("old", "kept"), service.url)
    routes = [{"path": f"/{name}", "service": name} for name in services]
    limits = [{"endpoint": f"/{name}", "limit": 1, "window": "1h", "scope": "ip"} for name in services]
    return gateway(services=services, routes=routes) | {"rate_limits": limits}


@pytest.fixture(scope="module")
def quiet(in_front: Start, module_service: Service) -> Daemon:
    """A daemon that has answered nothing yet, when the tests that take it run in their order."""
    return in_front(two(module_service))


def test_rubbish_on_the_admin_listener_is_not_traffic(quiet: Daemon, service: Service) -> None:
    """What comes to the admin listener counts as nobody's request."""
    with Client(quiet.admin) as client:
        client.send("rubbish\r\n\r\n")
        while client.more():
            pass
        assert b" 400 " in client.unread
    assert counted(quiet, "gateway_requests_total", "path", "status") == {}


def test_the_public_page_is_for_those_who_may(start: Start, quiet: Daemon, service: Service) -> None:
    """The public page is shown to ``metrics_allow``, which is everybody unless it is given."""
    assert b"gateway_build_info" in quiet.get("/metrics").body
    hidden = gateway(
        services={"main": service.url}, routes=[{"path": "/*", "service": "main"}], metrics_allow=["10.0.0.0/8"]
    )
    daemon = start(hidden)
    answer = daemon.get("/metrics", "X-Forwarded-For: 10.0.0.1")
    assert (answer.status, answer.code) == (404, "not_found")
    assert service.requests == []
    assert "gateway_build_info" in metrics(daemon)


def labelled(daemon: Daemon) -> set[str]:
    """Every route, service and limit that some series names."""
    names = ("path", "service", "endpoint")
    return {sample.labels[name] for sample in samples(daemon) for name in names if name in sample.labels}


def test_series_go_with_what_a_reload_removes(start: Start, service: Service) -> None:
    """What a reload removes has no series, and what it keeps keeps its counts."""
    daemon = start(two(service))
    for path in ("/old", "/old", "/kept", "/kept"):
        daemon.get(path)
    assert labelled(daemon) == {"/old", "/kept", "old", "kept"}
    document = two(service)
    del document["services"]["old"], document["routes"][0], document["rate_limits"][0]
    assert daemon.reload(document)
    eventually(lambda: labelled(daemon) == {"/kept", "kept"})
    assert value(daemon, "gateway_requests_total", path="/kept", status="429") == 1
    assert daemon.reload(two(service))
    daemon.get("/old")
    assert eventually(lambda: counted(daemon, "gateway_requests_total", "path", "status").get(("/old", "429"))) == 1
    assert value(daemon, "gateway_config_reloads_total", result="success") == 2
    assert value(daemon, "gateway_config_last_reload_successful") == 1


def test_a_configuration_that_was_refused_leaves_no_series(start: Start, service: Service) -> None:
    """A reload that is refused makes no series of the services in it."""
    daemon = start(two(service))
    document = two(service)
    document["services"]["new"] = {"targets": [service.url]}
    document["services"]["broken"] = {"targets": [service.url.replace("http", "https")], "tls": {"ca_file": __file__}}
    assert not daemon.reload(document)
    eventually(lambda: value(daemon, "gateway_config_last_reload_successful") == 0)
    assert labelled(daemon) == {"/old", "/kept", "old", "kept"}


def test_paths_of_the_gateway_itself_outlive_a_reload(start: Start, service: Service) -> None:
    """What the token endpoint has answered stays counted, even after a reload that drops it."""
    document = two(service)
    document["gateway"]["auth_default"] = "none"
    signing = {"algorithm": "HS256", "key_id": "k", "secret": "secretly" * 4}
    daemon = start({**document, "auth": {"oauth": {"signing": signing, "issuer": "https://me"}}})
    assert daemon.get("/oauth/token").status == 405
    assert daemon.reload(document)
    eventually(lambda: value(daemon, "gateway_config_reloads_total", result="success") == 1)
    assert value(daemon, "gateway_requests_total", path="/oauth/token", status="405") == 1


def test_connections_go_back_to_zero(quiet: Daemon, service: Service) -> None:
    """The gauge of connections follows them up and down."""
    eventually(lambda: value(quiet, "gateway_connections", protocol="HTTP/1.1") == 0)
    with quiet.connect() as client:
        client.get("/kept")
        eventually(lambda: value(quiet, "gateway_connections", protocol="HTTP/1.1") == 1)
    eventually(lambda: value(quiet, "gateway_connections", protocol="HTTP/1.1") == 0)
