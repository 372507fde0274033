"""SIGHUP: a new configuration, and nobody notices but by what it says."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from bench import origin
from bench.load import Load, Request, encode, explain
from support.client import encode as raw
from support.daemon import LOOPBACK, Daemon, Document, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start


def routes(*paths: str) -> list[Document]:
    return [{"path": path, "service": "main"} for path in paths]


def of(service: Service, *paths: str, **settings: object) -> Document:
    return gateway(services={"main": service.url}, routes=routes(*paths), **settings)


@pytest.fixture
def daemon(start: Start, service: Service) -> Daemon:
    return start(of(service, "/a"))


def test_routes_come_and_go(daemon: Daemon, service: Service) -> None:
    """A new service needs a restart, and a removed one stays reachable."""
    with daemon.connect() as client:
        assert (client.get("/a").status, client.get("/b").status) == (200, 404)
        assert daemon.reload(of(service, "/b"))
        assert (client.get("/a").status, client.get("/b").status) == (404, 200)
    assert daemon.status()["last_reload"] == "succeeded"


def test_a_broken_configuration_changes_nothing(daemon: Daemon, service: Service) -> None:
    """A typing error in a file takes everything down."""
    broken = of(service, "/a")
    broken["routes"].append({"path": "/b", "service": "mian"})
    broken["gateway"]["keepalive_timeot"] = "1s"
    assert not daemon.reload(broken)
    said = [line for line in daemon.log.splitlines() if "not reloaded: " in line]
    assert len(said) == 2
    assert all("gateway.yaml:1:" in line for line in said)
    assert "keepalive_timeot" in said[0] + said[1]
    assert "mian" in said[0] + said[1]
    assert (daemon.get("/a").status, daemon.get("/b").status) == (200, 404)
    assert daemon.status()["last_reload"] == "failed"

    (daemon.directory / "gateway.yaml").write_text("routes: [")
    assert not daemon.reload()
    (daemon.directory / "gateway.yaml").unlink()
    assert not daemon.reload()
    assert daemon.get("/a").status == 200
    assert daemon.reload(of(service, "/a", "/b"))
    assert daemon.get("/b").status == 200
    assert daemon.status()["last_reload"] == "succeeded"


def test_a_mistake_in_each_of_many_routes(daemon: Daemon, service: Service) -> None:
    """It is told in time, a hundred times and no more: a line takes long enough to be noticed thousands of times."""
    broken = of(service, *(f"/{number}" for number in range(3000)))
    for route in broken["routes"]:
        route["tmeout"] = "1s"
    assert not daemon.reload(broken)
    said = [line for line in daemon.log.splitlines() if "not reloaded: " in line]
    assert len(said) == 101
    assert said[-1].endswith("not reloaded: 2900 more, which `apigw check` names")
    assert len(daemon.status()["problems"]) == 101
    assert daemon.get("/a").status == 200


def test_a_warning_about_each_of_many_routes(daemon: Daemon, service: Service) -> None:
    """The same."""
    doubtful = of(service, *["/same"] * 120)
    for number, route in enumerate(doubtful["routes"]):
        route["headers"] = {"X-Kind": {"regex": f"{number}.*"}}
    assert daemon.reload(doubtful)
    log = daemon.log
    assert log.count("can match the same requests") <= 100
    assert "more warnings, which `apigw check` names" in log


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen", [LOOPBACK, LOOPBACK]),
        ("listen", ["tcp:1:interface=127.0.0.1"]),
        ("admin", None),
        ("admin", "unix:a.sock"),
    ],
)
def test_what_needs_a_restart_is_refused_by_name(daemon: Daemon, service: Service, setting: str, value: object) -> None:
    """Half of a change is made, and the rest forgotten."""
    assert not daemon.reload(of(service, "/a", "/b", **{setting: value}))
    said = [line for line in daemon.log.splitlines() if "not reloaded: " in line]
    assert len(said) == 1
    assert f"gateway.{setting}: a change here needs a restart" in said[0]
    assert (daemon.get("/a").status, daemon.get("/b").status) == (200, 404)


def test_limits_change_for_connections_that_are_open(daemon: Daemon, service: Service) -> None:
    """A limit that was set to stop an attack holds only for who connects anew."""
    with daemon.connect() as client:
        assert client.get("/a", "X-Large: " + "x" * 3000).status == 200
        assert daemon.reload(of(service, "/a", max_header_size="2KiB", max_body_size="1KiB"))
        assert client.request("POST", "/a", body=b"x" * 1025).status == 413
        assert client.get("/a", "X-Large: " + "x" * 3000).status == 431


def test_connections_to_a_service_that_stays_are_kept(daemon: Daemon, service: Service) -> None:
    """Every reload makes every service accept all its connections anew."""
    accepted = service.accepted
    main = {"targets": [service.url], "keepalive_timeout": "60s"}
    for number in range(6):
        assert daemon.reload(gateway(services={"main": main}, routes=routes("/a", f"/{number}")))
        assert daemon.get("/a").status == 200
    assert daemon.get("/a").status == 200
    assert service.accepted == accepted + 1
    assert {received.conversation.number for received in service.requests} == {service.accepted}


def test_a_removed_service_is_let_go_when_its_last_exchange_ends(daemon: Daemon, service: Service) -> None:
    """A reload cuts what is in flight, or keeps connections to services of long ago."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        received.body()
        go_on.wait(10)
        received.conversation.answer(200, body=b"done")

    service.behave = behave
    with closing(Service()) as other:
        client = daemon.connect().send(raw("POST", "/a", "Transfer-Encoding: chunked") + b"2\r\nhe\r\n")
        eventually(lambda: service.requests)
        assert daemon.reload(gateway(services={"other": other.url}, routes=[{"path": "/b", "service": "other"}]))
        assert daemon.get("/b").status == 200
        client.send(b"3\r\nllo\r\n0\r\n\r\n")
        go_on.set()
        assert client.answer().body == b"done"
        eventually(lambda: service.connections == 0)
        assert client.get("/a").status == 404
        assert daemon.reload(of(service, "/a"))
        eventually(lambda: other.connections == 0)


def test_what_is_known_of_targets_is_kept(start: Start, service: Service) -> None:
    """After a reload everybody runs into the broken machine once more."""
    service.behave = lambda received: received.conversation.answer(503 if received.target == "/well" else 200)
    with closing(Service()) as good:
        check = {"path": "/well", "interval": "1h", "timeout": "5s", "unhealthy_after": 1}
        main = {"targets": [service.url, good.url], "health_check": check}
        daemon = start(gateway(services={"main": main}, routes=routes("/a")))
        eventually(lambda: f"{service.url} is unhealthy" in daemon.log)
        assert daemon.reload(gateway(services={"main": main}, routes=routes("/a", "/b")))
        for _ in range(4):
            assert daemon.get("/b").status == 200
        assert [received.target for received in service.requests] == ["/well"]
        # What is configured otherwise is found out anew.
        main["targets"] = [service.url]
        assert daemon.reload(gateway(services={"main": main}, routes=routes("/a", "/b")))
        eventually(lambda: len(service.requests) == 2)


def test_many_signals_become_few_reloads(daemon: Daemon, service: Service) -> None:
    """A script that signals too often keeps the gateway busy for minutes, or the last change is missed."""
    for number in range(50):
        daemon.configure(of(service, "/a", f"/{number}"))
        daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.get("/49").status == 200)
    done = daemon.log.count("configuration reloaded: ")
    assert 1 <= done < 50
    assert "not reloaded" not in daemon.log


def test_reloads_under_load_cost_nobody_an_error(start: Start) -> None:
    """Each reload fails a few requests."""

    def requests() -> Iterator[Request]:
        for number in count():
            path = f"/load/{number}"
            # All wait, so that many are in flight at each moment, and few have to be answered.
            yield Request(encode(f"{path}?wait=0.05"), origin.answer(path))

    def generation(port: int, number: int) -> Document:
        services = {"main": f"http://127.0.0.1:{port}", f"other{number}": f"http://127.0.0.1:{port}"}
        return gateway(
            services=services,
            routes=[*routes("/load/*"), {"path": f"/generation/{number}", "service": f"other{number}"}],
        )

    async def run() -> None:
        server = await origin.listen()
        port = origin.port_of(server)
        daemon = await asyncio.to_thread(start, generation(port, 0), executed=True)
        load = Load(daemon.address, requests(), 16)
        running = asyncio.create_task(load.run())
        try:
            for number in range(1, 6):
                assert await asyncio.to_thread(daemon.reload, generation(port, number))
                assert (await asyncio.to_thread(daemon.get, f"/generation/{number}")).status == 200
                assert (await asyncio.to_thread(daemon.get, f"/generation/{number - 1}")).status == 404
        finally:
            load.stop()
            tally = await running
            server.close()
        assert tally.failures == [], explain(tally.failures)
        assert tally.answered > 100

    asyncio.run(run())
