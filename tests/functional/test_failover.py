"""Several targets of a service: who gets the requests, and who notices when one is gone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from bench import origin
from bench.load import Load, Request, encode, explain
from support.asking import circuit
from support.client import Client
from support.daemon import Daemon, Document, gateway
from support.services import Received, Service, echo, port_nobody_listens_on
from support.waiting import eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]
LARGE = b"x" * 65_537
"""More than the gateway buffers."""


@pytest.fixture
def pair() -> Iterator[tuple[Service, Service]]:
    with ExitStack() as stack:
        one, other = Service(), Service()
        stack.callback(one.close)
        stack.callback(other.close)
        yield one, other


def of(*targets: object, **more: object) -> Document:
    return gateway(services={"main": {"targets": list(targets), **more}}, routes=ALL)


def test_targets_take_turns_by_weight(start: Start, pair: tuple[Service, Service]) -> None:
    """A large machine gets as little as a small one, or everything in one burst."""
    one, other = pair
    daemon = start(of({"url": one.url, "weight": 3}, other.url))
    with daemon.connect() as client:
        for _ in range(40):
            assert client.get("/a").status == 200
            assert abs(len(one.requests) - 3 * len(other.requests)) <= 3
    assert (len(one.requests), len(other.requests)) == (30, 10)


def test_a_target_that_is_down_costs_nobody_an_error(start: Start, pair: tuple[Service, Service]) -> None:
    """Every other request fails while one of two machines is being replaced."""
    one, _ = pair
    daemon = start(of(f"http://127.0.0.1:{port_nobody_listens_on()}", one.url))
    for method in ("GET", "POST") * 10:
        assert daemon.request(method, "/a", body=b"x" if method == "POST" else b"").status == 200
    assert len(one.requests) == 20


def test_three_failed_connects_set_a_target_aside(start: Start, pair: tuple[Service, Service]) -> None:
    """Every other request pays for a machine that is known to be down."""
    one, _ = pair
    port = port_nobody_listens_on()
    daemon = start(of(f"http://127.0.0.1:{port}", one.url))
    for _ in range(8):
        assert daemon.get("/a").status == 200
    assert daemon.log.count("set aside for 10 s") == 1
    assert [target["available"] for target in circuit(daemon)["targets"]] == [False, True]


def test_an_outage_is_one_line_in_the_log(start: Start) -> None:
    """A service that is down fills the disk with a line for each request."""
    port = port_nobody_listens_on()
    daemon = start(of(f"http://127.0.0.1:{port}"))
    for _ in range(5):
        assert daemon.get("/a").code == "upstream_unreachable"
    assert daemon.log.count(f"no connection to http://127.0.0.1:{port}") == 1


def test_the_last_target_is_never_set_aside(start: Start) -> None:
    """A service that restarts stays unreachable for ten seconds more."""
    port = port_nobody_listens_on()
    daemon = start(of(f"http://127.0.0.1:{port}"))
    for _ in range(5):
        assert daemon.get("/a").code == "upstream_unreachable"
    service = Service(port=port)
    try:
        assert daemon.get("/a").status == 200
    finally:
        service.close()


def dies_silently(times: int) -> Callable[[Received], None]:
    """Answers, and the so many next requests that come over a connection in use it closes without a word."""
    left = [times]

    def behave(received: Received) -> None:
        received.body()
        if received.conversation.answered and left[0]:
            left[0] -= 1
            received.conversation.close()
        else:
            received.conversation.answer(200)

    return behave


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT"])
def test_a_kept_connection_that_died_is_replaced(start: Start, pair: tuple[Service, Service], method: str) -> None:
    """Now and then a request fails for no reason: the service had just closed the connection for being idle."""
    one, _ = pair
    daemon = start(of(one.url))
    one.behave = dies_silently(1)
    assert daemon.get("/a").status == 200
    assert daemon.request(method, "/b").status == 200
    assert [received.target for received in one.requests] == ["/a", "/b", "/b"]
    assert one.accepted == 2


def test_a_small_body_is_sent_again(start: Start, pair: tuple[Service, Service]) -> None:
    """A body that was buffered whole goes with its request when an idempotent one is sent again."""
    one, _ = pair
    daemon = start(of(one.url))
    one.behave = dies_silently(1)
    assert daemon.get("/a").status == 200
    assert daemon.request("PUT", "/b", body=b"small").status == 200
    assert [received.target for received in one.requests] == ["/a", "/b", "/b"]


def test_what_may_have_been_done_is_not_done_again(start: Start, pair: tuple[Service, Service]) -> None:
    """An order is placed twice because the answer to the first got lost."""
    one, _ = pair
    daemon = start(of(one.url))
    for method, body in (("POST", b""), ("POST", b"x"), ("PATCH", b"x"), ("PUT", LARGE)):
        one.requests.clear()
        one.behave = dies_silently(1)
        assert daemon.get("/a").status == 200
        assert daemon.request(method, "/b", body=body).code == "upstream_protocol_error"
        assert [received.target for received in one.requests] == ["/a", "/b"]


def test_a_retry_is_made_once(start: Start, pair: tuple[Service, Service]) -> None:
    """A request that crashes a service crashes it over and over."""
    one, _ = pair
    daemon = start(of(one.url))
    assert daemon.get("/a").status == 200
    one.behave = lambda received: received.conversation.close()
    assert daemon.get("/b").code == "upstream_protocol_error"
    assert [received.target for received in one.requests] == ["/a", "/b", "/b"]
    one.requests.clear()
    assert daemon.get("/fresh").code == "upstream_protocol_error"
    assert len(one.requests) == 1


def test_an_answer_that_has_begun_is_not_asked_for_again(start: Start, pair: tuple[Service, Service]) -> None:
    """A client gets the beginning of one answer and the rest of another."""
    one, _ = pair
    daemon = start(of(one.url))

    def behave(received: Received) -> None:
        if received.conversation.answered:
            received.conversation.send(b"HTTP/1.1 2")
            received.conversation.close()
        else:
            received.conversation.answer(200)

    one.behave = behave
    assert daemon.get("/a").status == 200
    assert daemon.get("/b").code == "upstream_protocol_error"
    assert len(one.requests) == 2


CHECK = {"path": "/well", "interval": "100ms", "timeout": "1s", "unhealthy_after": 2, "healthy_after": 2}


def test_a_sick_target_gets_no_requests_until_it_is_well(start: Start, pair: tuple[Service, Service]) -> None:
    """A machine that answers everything with an error keeps getting its share."""
    one, other = pair
    sick = threading.Event()

    def behave(received: Received) -> None:
        if received.target == "/well":
            assert received.get("user-agent") == "apigw-health"
            received.conversation.answer(503 if sick.is_set() else 200, body=b"so so")
        else:
            echo(received)

    one.behave = behave
    daemon = start(of(one.url, other.url, health_check=CHECK))

    def share() -> int:
        one.requests.clear()
        for _ in range(6):
            assert daemon.get("/a").status == 200
        return sum(received.target == "/a" for received in one.requests)

    assert share() == 3
    sick.set()
    eventually(lambda: share() == 0)
    assert f"{one.url} is unhealthy" in daemon.log
    sick.clear()
    eventually(lambda: share() == 3)
    assert f"{one.url} is healthy again" in daemon.log


@pytest.mark.parametrize("how", ["refuses", "hangs", "lies", "goes on for ever", "breaks off"])
def test_every_way_of_not_answering_is_unhealthy(start: Start, pair: tuple[Service, Service], how: str) -> None:
    """A machine in trouble passes its check."""
    one, other = pair

    def behave(received: Received) -> None:
        conversation = received.conversation
        if received.target != "/well":
            echo(received)
        elif how == "hangs":
            conversation.wait_for_end()
        elif how == "lies":
            conversation.send(b"nonsense\r\n\r\n")
        elif how == "breaks off":
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            conversation.close()
        else:
            conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                conversation.send(b"x" * 10_000)

    one.behave = behave
    if how == "refuses":
        one.close()
    daemon = start(of(one.url, other.url, health_check={**CHECK, "timeout": "200ms"}))
    eventually(lambda: f"{one.url} is unhealthy" in daemon.log)
    one.requests.clear()
    for _ in range(4):
        assert daemon.get("/a").status == 200
    assert [received for received in one.requests if received.target == "/a"] == []
    assert f"{other.url} is unhealthy" not in daemon.log


def test_a_target_by_name_is_found(start: Start, pair: tuple[Service, Service]) -> None:
    """A service that is configured by its name is not reached, or sees an address for its host."""
    one, _ = pair
    daemon = start(of(f"http://localhost:{one.port}", health_check=CHECK))
    assert daemon.get("/a").status == 200
    assert {received.get("host") for received in one.requests} == {f"localhost:{one.port}"}
    assert {received.target for received in one.requests} == {"/well", "/a"}


def test_connections_to_a_service_are_kept_and_then_closed(start: Start, pair: tuple[Service, Service]) -> None:
    """Each request pays for a new connection, or idle ones pile up at the service."""
    one, _ = pair
    daemon = start(of(one.url, keepalive_timeout="500ms"))
    for _ in range(5):
        assert daemon.get("/a").status == 200
    assert one.accepted == 1
    eventually(lambda: one.connections == 0)
    assert daemon.get("/a").status == 200


def ask(daemon: Daemon, path: str) -> tuple[int, Document]:
    with Client(daemon.admin) as client:
        answer = client.get(path)
        return answer.status, json.loads(answer.body)


def test_ready_says_whether_a_request_would_find_its_service(start: Start, pair: tuple[Service, Service]) -> None:
    """It is 503 while a service that is critical has no target that answers; no other service counts."""
    one, other = pair
    services = {
        "dialled": {"targets": [one.url], "critical": True},
        "checked": {"targets": [other.url], "critical": True, "health_check": {"path": "/x"}},
        "optional": [f"http://127.0.0.1:{port_nobody_listens_on()}"],
    }
    daemon = start(gateway(services=services, routes=[{"path": f"/{name}", "service": name} for name in services]))
    assert (daemon.get("/ready").status, daemon.get("/ready").json) == (200, {"status": "ready"})
    assert ask(daemon, "/ready") == (200, {"status": "ready", "checks": {"dialled": "ok", "checked": "ok"}})
    assert ask(daemon, "/health") == (200, {"status": "ok"})

    port = one.port
    one.close()
    eventually(lambda: daemon.get("/ready").status == 503)
    assert daemon.get("/ready").json == {"status": "not ready"}
    status, document = ask(daemon, "/ready")
    assert (status, document["status"], document["checks"]["checked"]) == (503, "not ready", "ok")
    assert "refused" in document["checks"]["dialled"]
    assert daemon.get("/health").status == 200

    again = Service(port=port)
    try:
        eventually(lambda: daemon.get("/ready").status == 200)
        other.behave = lambda received: received.conversation.answer(500)
        eventually(lambda: daemon.get("/ready").status == 503)
        assert ask(daemon, "/ready")[1]["checks"]["checked"] == "answered its health check with 500"
    finally:
        again.close()


def test_ready_is_not_confused_by_load(start: Start, pair: tuple[Service, Service]) -> None:
    """A gateway whose service is busy is taken out of service, and the next one gets its load."""
    one, _ = pair
    go_on = threading.Event()

    def behave(received: Received) -> None:
        go_on.wait(20)
        received.conversation.answer(200)

    one.behave = behave
    daemon = start(of(one.url, max_connections=1, max_pending=1))
    with daemon.connect() as client:
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: one.requests)
        assert daemon.get("/ready").status == 200
        go_on.set()
        assert client.answer().status == 200


def test_a_target_killed_under_load_costs_nobody_an_error(start: Start) -> None:
    """Users see errors whenever one machine of two crashes."""

    def requests() -> Iterator[Request]:
        for number in count():
            path = f"/{number}"
            yield Request(encode(path + ("" if number % 4 else "?wait=0.02")), origin.answer(path))

    async def run() -> None:
        victim, survivor = await origin.listen(), await origin.listen()
        taken: list[asyncio.Transport] = []
        connected = origin.Connection.connection_made

        def remember(self: origin.Connection, transport: asyncio.Transport) -> None:
            connected(self, transport)
            if transport.get_extra_info("sockname")[1] == port:
                taken.append(transport)

        port = origin.port_of(victim)
        origin.Connection.connection_made = remember  # type: ignore[method-assign, assignment]
        urls = [f"http://127.0.0.1:{origin.port_of(server)}" for server in (victim, survivor)]
        daemon = await asyncio.to_thread(start, of(*urls))
        load = Load(daemon.address, requests(), 16)
        running = asyncio.create_task(load.run())
        try:
            while load.tally.answered < 500:
                await asyncio.sleep(0.01)
            assert taken
            victim.close()
            for transport in taken:
                transport.abort()
            before = load.tally.answered
            while load.tally.answered < before + 1000 and len(load.tally.failures) < 10:
                await asyncio.sleep(0.01)
        finally:
            origin.Connection.connection_made = connected  # type: ignore[method-assign]
            load.stop()
            tally = await running
            survivor.close()
        assert tally.failures == [], explain(tally.failures)
        assert Counter(tally.statuses) == {200: tally.answered}
        assert "set aside" in daemon.log

    asyncio.run(run())
