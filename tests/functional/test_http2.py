"""HTTP/2 towards clients: the same gateway, many exchanges on one connection."""

from __future__ import annotations

import shutil
import threading
from zlib import crc32

import pytest
from bench.machine import MIB
from bench.origin import pieces
from hyperframe.frame import DataFrame, GoAwayFrame
from support.certificates import Authority
from support.daemon import LOOPBACK, Daemon, gateway
from support.h2_client import Exchange, H2Client
from support.services import Received, Service, port_nobody_listens_on
from support.waiting import eventually

from .conftest import Start

SIZE = 16 * MIB


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, authority: Authority) -> Daemon:
    pair = authority.issue("localhost")
    tls = {"certificates": [{"cert_file": pair.certificate, "key_file": pair.key}]}
    services = {"main": module_service.url, "nobody": f"http://127.0.0.1:{port_nobody_listens_on()}"}
    routes = [
        {"path": "/nobody", "service": "nobody"},
        {"path": "/get", "service": "main", "methods": ["GET"]},
        {"path": "/limited", "service": "main", "max_body_size": "1KiB"},
        {"path": "/m/*", "service": "main"},
    ]
    return in_front(
        gateway(
            services=services, routes=routes, listen=[LOOPBACK, {"endpoint": LOOPBACK, "tls": tls}], max_body_size=None
        )
    )


@pytest.fixture(params=["prior knowledge", "tls"])
def client(request: pytest.FixtureRequest, daemon: Daemon, authority: Authority) -> H2Client:
    if request.param == "tls":
        return H2Client(daemon.addresses[1], authority.client())
    return H2Client(daemon.address)


def test_requests_and_answers(client: H2Client, service: Service) -> None:
    """Requests over HTTP/2 arrive as the service knows them, and so do its answers."""
    with client:
        answer = client.request("GET", "/m/a?b=c", ("x-request-id", "mine"), ("cookie", "a=1"), ("cookie", "b=2"))
        assert (answer.status, answer.json["target"]) == (200, "/m/a?b=c")
        assert answer.get("x-request-id") == "mine"
        assert answer.get("via") == "1.1 apigw"
        assert service.last.get("via") == "2 apigw"
        assert service.last.get("cookie") == "a=1; b=2"
        assert service.last.get("x-forwarded-host") == "localhost"
        assert service.last.get("x-forwarded-proto") == ("https" if hasattr(client.socket, "cipher") else "http")
        assert client.request("POST", "/m/a", body=b"hello").json["body"] == "hello"
        assert client.request("HEAD", "/m/a").status == 200
        assert client.request("POST", "/m/a", ("x-user-id", "root"), body=b"x").status == 200
        assert service.last.all("x-user-id") == []


def test_what_the_gateway_answers_itself(client: H2Client, service: Service) -> None:
    """The gateway's own answers leave the connection and its other streams alone."""
    with client:
        for method, path, status, code in (
            ("GET", "/nothing", 404, "not_found"),
            ("POST", "/get", 405, "method_not_allowed"),
            ("FROB", "/m/a", 501, "not_implemented"),
            ("GET", "/m/../a", 400, "bad_request"),
            ("GET", "/nobody", 502, "upstream_unreachable"),
        ):
            answer = client.request(method, path, body=b"hello" if method == "POST" else b"")
            assert (answer.status, answer.code) == (status, code)
        answer = client.request("PUT", "/limited", body=b"x" * 100_000)
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert client.request("GET", "/health").json == {"status": "ok"}
        assert client.request("GET", "/m/a").status == 200
        assert client.goaway is None
    assert "/nobody" not in {received.target for received in service.requests}


def test_many_at_once(client: H2Client, service: Service) -> None:
    """A slow answer holds up no other."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        if received.target == "/m/slow":
            go_on.wait(10)
        received.conversation.answer(200, body=received.target.encode())

    service.behave = behave
    with client:
        slow = client.begin("GET", "/m/slow")
        numbers = {client.begin("GET", f"/m/{number}"): number for number in range(60)}
        for stream, number in numbers.items():
            assert client.finish(stream).body == f"/m/{number}".encode()
        assert client.streams[slow].answer is None
        go_on.set()
        assert client.finish(slow).body == b"/m/slow"


def test_many_in_one_segment(client: H2Client) -> None:
    """They are answered over several turns of the reactor, in order, and so is what comes behind them."""
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/nothing")]
    with client:
        assert client.request("GET", "/nothing").status == 404
        for _ in range(3):
            numbers = [client.connection.get_next_available_stream_id() + 2 * count for count in range(90)]
            for number in numbers:
                client.connection.send_headers(number, head, end_stream=True)
                client.streams[number] = Exchange()
            client.flush()
            assert [client.finish(number).status for number in numbers] == [404] * 90
        assert client.request("GET", "/m/a").status == 200


def test_large_bodies(client: H2Client, daemon: Daemon, service: Service) -> None:
    """Bodies larger than any window arrive whole, both ways."""

    def behave(received: Received) -> None:
        total = 0
        for piece in received.pieces():
            total = crc32(piece, total)
        received.conversation.send(b"HTTP/1.1 200 OK\r\nX-Sum: %d\r\nContent-Length: %d\r\n\r\n" % (total, SIZE))
        for piece in pieces(SIZE):
            received.conversation.send(piece)

    service.behave = behave
    body = b"".join(pieces(SIZE))
    with client:
        answer = client.request("PUT", "/m/a", body=body)
        assert answer.get("x-sum") == str(crc32(body))
        assert answer.body == body


def test_a_client_that_gives_no_window_holds_up_its_stream_alone(
    client: H2Client, daemon: Daemon, service: Service
) -> None:
    """One stalled download stops the connection, or fills the memory."""

    def behave(received: Received) -> None:
        if received.target == "/m/large":
            received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            for piece in pieces(64 * MIB):
                received.conversation.send(piece)
        else:
            received.conversation.answer(200)

    service.behave = behave
    before = daemon.resident
    with client:
        client.connection.increment_flow_control_window(2**24)
        client.flush()
        client.give_back = False
        large = client.begin("GET", "/m/large")
        client.until(lambda: len(client.streams[large].body) == 65535)
        for number in range(10):
            assert client.request("GET", f"/m/{number}").status == 200
        assert len(client.streams[large].body) == 65535
        assert daemon.resident - before < 32 * MIB
    eventually(daemon.is_quiet)


def test_an_answer_whose_last_piece_fills_the_buffer_leaves_its_connection_usable(
    client: H2Client, daemon: Daemon, service: Service
) -> None:
    """After a client that reads slowly, the next one's request gets no answer."""
    # The stream's window, all that may wait for it, and a little more, with which the answer ends.
    size = 65535 + 65536 + 1000
    service.behave = lambda received: received.conversation.answer(200, body=b"x" * size)
    with client:
        client.give_back = False
        client.connection.increment_flow_control_window(2**24)
        client.flush()
        slow = client.begin("GET", "/m/slow")
        client.until(lambda: len(client.streams[slow].body) == 65535)
        service.behave = lambda received: received.conversation.answer(200, body=b"next")
        for _ in range(3):
            assert client.request("GET", "/m/next").body == b"next"
        client.connection.increment_flow_control_window(2**24, slow)
        client.flush()
        assert client.finish(slow).body == b"x" * size
    assert {received.conversation.number for received in service.requests} == {service.accepted}


def test_events_arrive_one_by_one(client: H2Client, service: Service) -> None:
    """Each event is passed on when it comes."""
    seen = threading.Semaphore(0)

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            received.conversation.send(b"data: %d\n\n" % number)
            assert seen.acquire(timeout=10)
        received.conversation.close()

    service.behave = behave
    with client:
        stream = client.begin("GET", "/m/events")
        for number in range(5):
            client.until(lambda number=number: client.streams[stream].body.endswith(b"data: %d\n\n" % number))  # type: ignore[misc]
            seen.release()
        client.finish(stream)


def test_the_gateway_answers_expect_100_continue(client: H2Client, service: Service) -> None:
    """A client that asks before it sends is told to go on."""
    with client:
        stream = client.begin("PUT", "/m/a", ("expect", "100-continue"), end=False)
        client.until(lambda: client.streams[stream].interim == [100])
        client.send(stream, b"hello", end=True)
        assert client.finish(stream).json["body"] == "hello"


def test_a_cancelled_stream_cancels_its_request(client: H2Client, daemon: Daemon, service: Service) -> None:
    """When a stream is cancelled, its request ends at the service too."""
    ended = threading.Semaphore(0)

    def behave(received: Received) -> None:
        if received.conversation.wait_for_end():
            ended.release()

    service.behave = behave
    with client:
        for number in range(5):
            stream = client.begin("GET", "/m/a")
            eventually(lambda number=number: len(service.requests) == number + 1)  # type: ignore[misc]
            client.cancel(stream)
            assert ended.acquire(timeout=10)
        eventually(daemon.is_quiet)


def test_a_refusal_before_the_bodys_end_leaves_the_connection_alive(client: H2Client, service: Service) -> None:
    """A refused upload leaves the connection to the other streams."""
    with client:
        stream = client.begin("PUT", "/nothing", ("content-length", "10000000"), end=False)
        client.until(lambda: client.streams[stream].ended)
        assert client.finish(stream).status == 404
        assert client.request("GET", "/m/a").status == 200
        assert client.goaway is None


@pytest.mark.parametrize("how", ["a length", "chunks"])
def test_a_truncated_body_never_looks_complete(client: H2Client, service: Service, how: str) -> None:
    """A client can tell that a body was cut off."""
    head = b"Content-Length: 10" if how == "a length" else b"Transfer-Encoding: chunked"

    def behave(received: Received) -> None:
        received.conversation.send(
            b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nhello\r\n"[: 9 if how == "a length" else 99]
        )
        received.conversation.close()

    service.behave = behave
    with client:
        stream = client.begin("GET", "/m/a")
        client.until(lambda: client.streams[stream].reset is not None)
        assert not client.streams[stream].ended
        service.behave = lambda received: received.conversation.answer(200)
        assert client.request("GET", "/m/a").status == 200


def test_a_drain_finishes_what_is_in_flight(start: Start, service: Service) -> None:
    """SIGTERM ends a connection when its streams have been answered."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        body = received.body()
        go_on.wait(10)
        received.conversation.answer(200, body=body or b"done")

    service.behave = behave
    daemon = start(gateway(services={"main": service.url}, routes=[{"path": "/m/*", "service": "main"}]))
    idle, busy = H2Client(daemon.address), H2Client(daemon.address)
    with idle, busy:
        idle.until(lambda: idle.connection.remote_settings.max_concurrent_streams == 100)
        first, second = busy.begin("GET", "/m/a"), busy.begin("POST", "/m/b", end=False)
        busy.send(second, b"hel")
        eventually(lambda: len(service.requests) == 2)
        daemon.terminate()
        farewell = [frame for frame in idle.frames_to_the_end() if isinstance(frame, GoAwayFrame)]
        assert farewell
        assert {frame.error_code for frame in farewell} == {0}
        body = DataFrame(second, b"lo")
        body.flags.add("END_STREAM")
        busy.socket.sendall(body.serialize())
        go_on.set()
        frames = busy.frames_to_the_end()
        assert [frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)][-1] == 0
        data = {frame.stream_id: frame.data for frame in frames if isinstance(frame, DataFrame)}
        assert data == {first: b"done", second: b"hello"}
    assert daemon.wait() == 0


curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
