"""What a user is told when something goes wrong, and that nothing else goes wrong with it."""

from __future__ import annotations

import socket
import threading

import pytest
from support.client import Truncated, chunked, encode
from support.daemon import Daemon, gateway
from support.services import Behaviour, Received, Service, port_nobody_listens_on
from support.waiting import eventually

from .conftest import Start


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    url = module_service.url
    services = {
        "main": {"targets": [url], "timeout": "10s"},
        "nobody": f"http://127.0.0.1:{port_nobody_listens_on()}",
        "unknown": "http://no-such-host.invalid:80",
        "hasty": {"targets": [url], "timeout": "300ms"},
        "small": {"targets": [url], "max_connections": 1, "max_pending": 1, "connect_timeout": "10s"},
        "sick": {
            "targets": [f"http://127.0.0.1:{port_nobody_listens_on()}"],
            "health_check": {"path": "/", "interval": "100ms", "timeout": "1s", "unhealthy_after": 1},
        },
    }
    routes = [{"path": f"/{name}/*", "service": name} for name in services]
    routes.append({"path": "/limited", "service": "main", "max_body_size": "1KiB"})
    return in_front(gateway(services=services, routes=routes))


def lies(answer: bytes, then_close: bool = False) -> Behaviour:
    def behave(received: Received) -> None:
        received.body()
        received.conversation.send(answer)
        if then_close:
            received.conversation.close()

    return behave


OK = b"HTTP/1.1 200 OK\r\n"

LIES = {
    "no status line": b"hello\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a head that is too large": OK + b"X-A: " + b"a" * 300_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "an upgrade unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "a malformed body right behind its head": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    "a 103 and nonsense": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nnonsense\r\n\r\n",
}
"""Each followed by the end of the connection. The whole table is that of the client of HTTP/1."""


ENDS = ["no status line", "two lengths", "half a head"]


@pytest.mark.parametrize(
    ("method", "lie"),
    [*(("GET", lie) for lie in LIES), *(("POST", lie) for lie in ENDS), *(("HEAD", lie) for lie in ENDS)],
)
def test_a_service_that_lies_is_a_502(daemon: Daemon, service: Service, lie: str, method: str) -> None:
    """What is no answer is 502, and the next answer on the client's connection is right."""
    service.behave = lies(LIES[lie], then_close=True)
    with daemon.connect() as client:
        answer = client.request(method, "/main/a", body=b"x" if method == "POST" else b"")
        assert answer.status == 502
        if method != "HEAD":
            assert answer.code == "upstream_protocol_error"
        service.behave = lies(OK + b"Content-Length: 4\r\n\r\nwell")
        assert client.get("/main/a").body == b"well"
    assert daemon.is_quiet()


CUT_SHORT = {
    "a length": OK + b"Content-Length: 1000\r\n\r\nhello",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "the last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("how", CUT_SHORT)
def test_a_truncated_body_never_looks_complete(daemon: Daemon, service: Service, how: str, version: str) -> None:
    """A client can tell that a body was cut off."""
    service.behave = lies(CUT_SHORT[how], then_close=True)
    with daemon.connect() as client:
        client.send(f"GET /main/a HTTP/{version}\r\nHost: localhost\r\n\r\n")
        if version == "1.0" and "Transfer" in CUT_SHORT[how].decode():
            # Its end is the end of the connection: only a reset tells it from the end of the body.
            with pytest.raises(ConnectionResetError):
                while client.socket.recv(65536):
                    pass
            return
        with pytest.raises(Truncated):
            client.answer()
    assert daemon.get("/nobody/a").status == 502
    assert daemon.is_quiet()


def test_a_body_that_ends_with_the_connection_is_framed(daemon: Daemon, service: Service) -> None:
    """A body without a length goes out in chunks, over a connection that stays."""
    for head in (OK, b"HTTP/1.0 200 OK\r\n"):
        service.behave = lies(head + b"\r\nhello", then_close=True)
        with daemon.connect() as client:
            answer = client.get("/main/a")
            assert (answer.body, answer.get("transfer-encoding")) == (b"hello", "chunked")
            assert client.get("/main/a").body == b"hello"


def test_a_reset_in_a_body_that_ends_with_the_connection_is_no_end(daemon: Daemon, service: Service) -> None:
    """The client can tell that the service crashed in the middle of an answer without a length."""

    def behave(received: Received) -> None:
        received.conversation.send(OK + b"\r\nhello")
        arrived.wait(10)
        received.conversation.reset()

    arrived = threading.Event()
    service.behave = behave
    with daemon.connect() as client:
        answer = client.send(encode("GET", "/main/a")).head()
        assert client.chunk() == b"hello"
        arrived.set()
        with pytest.raises(Truncated):
            client.body(answer)


def test_interim_answers_do_not_confuse_what_follows(daemon: Daemon, service: Service) -> None:
    """Interim answers are dropped, and each request has its own answer."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nContent-Length: 3\r\n\r\n"
    for interim in (b"HTTP/1.1 100 Continue\r\n\r\n", hints, hints + b"HTTP/1.1 102 Processing\r\n\r\n" + hints):
        service.behave = lies(interim + OK + b"Content-Length: 5\r\n\r\nhello")
        with daemon.connect() as client:
            for method in ("GET", "POST"):
                answer = client.request(method, "/main/a", body=b"x" if method == "POST" else b"")
                assert (answer.status, answer.body, answer.all("link")) == (200, b"hello", [])


@pytest.mark.parametrize(
    "extra",
    [OK + b"Content-Length: 6\r\n\r\nstolen", b"\r\n\r\nx"],
)
@pytest.mark.parametrize("when", ["at once", "later"])
def test_an_answer_that_nobody_asked_for_reaches_nobody(
    daemon: Daemon, service: Service, extra: bytes, when: str
) -> None:
    """What a service sends unasked reaches no client, and its connection is closed."""
    said = threading.Event()

    def behave(received: Received) -> None:
        whole = OK + b"Content-Length: 5\r\n\r\nhello"
        if when == "at once":
            received.conversation.send(whole + extra)
        else:
            received.conversation.send(whole)
            said.wait(10)
            received.conversation.send(extra)
        assert received.conversation.wait_for_end()

    service.behave = behave
    assert daemon.get("/main/a").body == b"hello"
    service.behave = lies(OK + b"Content-Length: 4\r\n\r\nmine")
    said.set()
    eventually(lambda: service.connections == 0)
    for _ in range(3):
        assert daemon.get("/main/a").body == b"mine"


def test_a_service_that_cannot_be_reached_is_a_502(daemon: Daemon) -> None:
    """A service that is down is 502, without its address."""
    for path in ("/nobody/a", "/unknown/a"):
        answer = daemon.get(path)
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        assert "invalid" not in answer.json["detail"]


def test_a_service_that_does_not_answer_is_a_504(daemon: Daemon, service: Service) -> None:
    """A service that hangs is 504, and its connection is closed."""
    ended = threading.Event()

    def behave(received: Received) -> None:
        received.body()
        if received.conversation.wait_for_end():
            ended.set()

    service.behave = behave
    answer = daemon.request("POST", "/hasty/a", body=b"hello")
    assert (answer.status, answer.code) == (504, "upstream_timeout")
    assert ended.wait(10)


def test_a_full_queue_is_a_503(daemon: Daemon, service: Service) -> None:
    """So many requests wait for a connection as ``max_pending`` says, and the next is 503."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        go_on.wait(10)
        received.conversation.answer(200)

    service.behave = behave
    first, second = daemon.connect(), daemon.connect()
    first.send(encode("GET", "/small/1"))
    eventually(lambda: len(service.requests) == 1)
    second.send(encode("GET", "/small/2"))
    eventually(lambda: daemon.status()["in_flight"] == 2)
    answer = daemon.get("/small/3")
    assert (answer.status, answer.code) == (503, "overloaded")
    assert int(answer.get("retry-after") or 0) >= 1
    go_on.set()
    assert (first.answer().status, second.answer().status) == (200, 200)
    assert service.accepted - service.connections >= 0
    assert [received.target for received in service.requests] == ["/small/1", "/small/2"]


def test_no_healthy_target_is_a_503(daemon: Daemon) -> None:
    """Where every target is known to be down, requests are refused at once."""
    eventually(lambda: daemon.get("/sick/a").status == 503)
    assert daemon.get("/sick/a").code == "no_healthy_target"


def test_a_body_that_is_announced_too_large_is_refused_unread(daemon: Daemon, service: Service) -> None:
    """A body that announces more than ``max_body_size`` is 413, and the service hears nothing of it."""
    with daemon.connect() as client:
        client.send("PUT /limited HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
    assert service.requests == []
    assert daemon.request("PUT", "/limited", body=b"x" * 1024).status == 200


def test_a_body_that_becomes_too_large_is_refused(daemon: Daemon, service: Service) -> None:
    """``max_body_size`` holds for bodies of unknown length too."""
    ended = threading.Event()

    def behave(received: Received) -> None:
        try:
            received.body()
            received.conversation.answer(200)
        finally:
            ended.set()

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("PUT", "/limited", "Transfer-Encoding: chunked"))
        for _ in range(3):
            client.send(b"200\r\n" + b"x" * 512 + b"\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert answer.get("connection") == "close"
    if service.requests:
        assert ended.wait(10)
        assert service.connections == 0 or service.requests[0].conversation.answered == 0
    small = encode("PUT", "/limited", "Transfer-Encoding: chunked") + chunked(b"x" * 512, b"y" * 512)
    with daemon.connect() as client:
        assert client.send(small).answer().status == 200


def test_an_answer_before_the_body_is_complete_is_passed_on(daemon: Daemon, service: Service) -> None:
    """A client learns why its upload was refused before it was over."""

    def behave(received: Received) -> None:
        received.conversation.answer(403, body=b"no")
        received.conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        client.send("PUT /main/a HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\nhello")
        answer = client.answer()
        assert (answer.status, answer.body, answer.get("connection")) == (403, b"no", "close")
    eventually(daemon.is_quiet)


def test_a_client_that_ends_its_side_is_answered(daemon: Daemon, service: Service) -> None:
    """``nc -N`` closes its side as soon as it has sent its request, and waits for the answer."""
    with daemon.connect() as client:
        client.send(encode("GET", "/main/a") + encode("GET", "/main/b"))
        client.socket.shutdown(socket.SHUT_WR)
        answers = [client.answer() for _ in range(2)]
        assert [(answer.status, answer.json["target"]) for answer in answers] == [(200, "/main/a"), (200, "/main/b")]
        assert client.is_closed()
    assert daemon.is_quiet()


def test_a_client_that_leaves_cancels_its_request(daemon: Daemon, service: Service) -> None:
    """When a client leaves, its request ends at the service too."""
    ended = threading.Semaphore(0)

    def behave(received: Received) -> None:
        received.body()
        if received.conversation.wait_for_end():
            ended.release()

    service.behave = behave
    whole = [
        encode("GET", "/main/a"),
        encode("POST", "/main/a", body=b"hello"),
        encode("POST", "/main/a", "Transfer-Encoding: chunked") + chunked(b"hello"),
    ]
    # All at once: whoever has only ended its side may be waiting for its answer, and is given five seconds.
    clients = [(daemon.connect().send(request), leave) for request in whole for leave in ("close", "reset")]
    eventually(lambda: len(service.requests) == len(clients))
    for client, leave in clients:
        getattr(client, leave)()
    for _ in clients:
        assert ended.acquire(timeout=10)
    eventually(daemon.is_quiet)
    service.behave = lambda received: [*received.pieces()]
    for leave in ("close", "reset"):
        service.requests.clear()
        client = daemon.connect().send(encode("POST", "/main/a", "Transfer-Encoding: chunked") + b"1\r\nx\r\n")
        eventually(lambda: service.requests)
        client.send(b"5\r\nhel")  # in the middle of its body
        getattr(client, leave)()
        eventually(daemon.is_quiet)
    eventually(lambda: service.connections == 0)


def test_a_head_and_its_body_may_come_apart(daemon: Daemon, service: Service) -> None:
    """A body that arrives while the service is being dialled arrives there whole."""
    for _ in range(20):
        service.close_connections()
        with daemon.connect() as client:
            client.send(encode("POST", "/main/a", "Transfer-Encoding: chunked")).send(chunked(b"a", b"b"))
            assert client.answer().json["body"] == "ab"
            client.send(b"PUT /main/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").send(b"ab").send(b"c")
            assert client.answer().json["body"] == "abc"
            assert client.get("/main/a").status == 200
