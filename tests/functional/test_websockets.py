"""WebSockets through the gateway, and upgrades that are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.client import HANDSHAKE, encode
from support.daemon import Daemon, gateway
from support.services import SWITCH, Received, Service, echo
from support.waiting import eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from .conftest import Start


@pytest.fixture(scope="module")
def sockets() -> Iterator[int]:
    """The port of a WebSocket service."""

    def converse(connection: ServerConnection) -> None:
        for message in connection:
            if message == "close":
                connection.close(4001, "as you wish")
            else:
                connection.send(message)

    with serve(converse, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, sockets: int) -> Daemon:
    services = {
        "sockets": {"targets": [f"http://127.0.0.1:{sockets}"], "timeout": "300ms"},
        "raw": module_service.url,
    }
    routes = [{"path": f"/{name}", "service": name} for name in services]
    return in_front(gateway(services=services, routes=routes, keepalive_timeout="500ms", client_body_timeout="500ms"))


def open_socket(daemon: Daemon, path: str = "/sockets") -> ClientConnection:
    host, port = daemon.address
    return connect(f"ws://{host}:{port}{path}", max_size=None, compression=None)


def test_messages_go_both_ways(daemon: Daemon) -> None:
    """Messages of any size go both ways."""
    with open_socket(daemon) as one, open_socket(daemon) as other:
        for number in range(20):
            one.send(f"one {number}")
            other.send(b"other %d" % number)
            assert one.recv(10) == f"one {number}"
            assert other.recv(10) == b"other %d" % number
        assert one.ping().wait(10)
        large = bytes(range(256)) * 16384
        one.send(large)
        assert one.recv(20) == large
        assert daemon.status()["in_flight"] == 2
    eventually(daemon.is_quiet)


def test_either_side_may_close(daemon: Daemon) -> None:
    """Whichever side closes, the other learns it and why."""
    with open_socket(daemon) as socket:
        socket.send("close")
        with pytest.raises(ConnectionClosed):
            socket.recv(10)
        assert (socket.close_code, socket.close_reason) == (4001, "as you wish")
    eventually(daemon.is_quiet)


def test_the_handshake_reaches_the_service_as_it_is(daemon: Daemon, service: Service) -> None:
    """A service gets the handshake as the client sent it, and says the rest."""

    def behave(received: Received) -> None:
        received.conversation.send(SWITCH.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: x\r\nX-Mine: y\r\n\r\n"))
        received.conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        answer = client.send(
            encode("GET", "/raw", *HANDSHAKE, "Sec-WebSocket-Protocol: a, b", "Connection: x-b", "X-B: 1")
        ).head()
        assert answer.status == 101
        assert (answer.get("connection"), answer.get("upgrade")) == ("upgrade", "websocket")
        assert (answer.get("sec-websocket-accept"), answer.get("x-mine")) == ("x", "y")
    received = service.last
    assert (received.get("connection"), received.get("upgrade")) == ("upgrade", "websocket")
    assert received.get("sec-websocket-key") == "A" * 22 + "=="
    assert received.get("sec-websocket-protocol") == "a, b"
    assert received.get("x-forwarded-for") == "127.0.0.1"
    assert received.all("x-b") == []


@pytest.mark.parametrize("status", [200, 403])
def test_a_service_may_refuse(daemon: Daemon, service: Service, status: int) -> None:
    """A service's refusal is an answer as any other."""
    service.behave = lambda received: received.conversation.answer(status, "X-Why: because", body=b"no")
    with daemon.connect() as client:
        answer = client.request("GET", "/raw", *HANDSHAKE)
        assert (answer.status, answer.body, answer.get("x-why")) == (status, b"no", "because")
        service.behave = echo
        assert client.get("/raw").status == 200
    service.behave = lambda received: received.conversation.answer(status, "X-Why: because", body=b"no")
    with pytest.raises(InvalidStatus):
        open_socket(daemon, "/raw")


def test_what_comes_early_is_held_back(daemon: Daemon, service: Service) -> None:
    """What a client sends behind its handshake waits until the service has agreed."""
    asked, agreed = threading.Event(), threading.Event()

    def behave(received: Received) -> None:
        asked.set()
        received.conversation.socket.settimeout(0.3)
        assert received.conversation.wait_for_end(), "something came before the 101"  # a timeout, in truth
        received.conversation.socket.settimeout(30)
        agreed.set()
        received.conversation.send(SWITCH + b"early answer")
        assert received.conversation.until(b"!") == b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\nlater"
        received.conversation.send(b"done")
        received.conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("GET", "/raw", *HANDSHAKE) + b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(10)
        assert client.head().status == 101
        assert agreed.is_set()
        client.send(b"later!")
        while client.more():
            pass
        assert client.unread == b"early answerdone"


def test_what_comes_early_and_is_refused_is_read_as_the_requests_that_it_is(daemon: Daemon, service: Service) -> None:
    """What comes behind a handshake that is refused is read as requests, and checked."""
    with daemon.connect() as client:
        client.send(encode("GET", "/raw", *HANDSHAKE) + encode("GET", "/admin") + b"\x81\x85nonsense")
        assert client.answer().status == 200
        assert client.answer().code == "not_found"
    assert [received.target for received in service.requests] == ["/raw"]


def test_a_switch_to_something_else_is_a_502(daemon: Daemon, service: Service) -> None:
    """A service that switches to what nobody asked for is 502."""

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nhello")
        received.conversation.close()

    service.behave = behave
    got = daemon.request("GET", "/raw", *HANDSHAKE)
    assert (got.status, got.code) == (502, "upstream_protocol_error")
