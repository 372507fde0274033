"""Services that are spoken to by HTTP/2: many exchanges on one connection, and each as with HTTP/1.1."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.certificates import Authority
from support.client import Truncated, encode
from support.daemon import Daemon, gateway
from support.h2_client import H2Client
from support.h2_service import Behaviour, H2Service, Received, echo
from support.services import Service
from support.waiting import eventually

from .conftest import Start

CANCEL, REFUSED_STREAM, INTERNAL_ERROR = 8, 7, 2


@pytest.fixture(scope="module")
def module_h2() -> Iterator[H2Service]:
    with closing(H2Service()) as service:
        yield service


@pytest.fixture
def service(module_h2: H2Service) -> Iterator[H2Service]:
    module_h2.behave = echo
    module_h2.requests.clear()
    yield module_h2
    assert module_h2.failures == []


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_h2: H2Service) -> Daemon:
    main = {"targets": [module_h2.url], "protocol": "h2c", "timeout": "2s"}
    retried = {**main, "retry": {"methods": "all", "per_try_timeout": "200ms"}}
    routes = [{"path": "/*", "service": "main"}, {"path": "/again/*", "service": "retried"}]
    return in_front(gateway(services={"main": main, "retried": retried}, routes=routes))


def test_a_request_arrives_as_it_was_sent(daemon: Daemon, service: H2Service) -> None:
    """Method, path, authority and fields, and none that belong to a connection of HTTP/1.1."""
    answer = daemon.request("PUT", "/a?b=c", "X-Thing: 42", "Cookie: a=b", "TE: trailers", body=b"hello")
    assert answer.status == 200
    assert answer.get("via") == "2 apigw"
    assert answer.json["body"] == "hello"
    fields = dict(answer.json["headers"])
    assert (fields[":method"], fields[":path"], fields[":scheme"]) == ("PUT", "/a?b=c", "http")
    assert fields[":authority"] == f"127.0.0.1:{service.port}"
    assert (fields["x-thing"], fields["cookie"], fields["content-length"]) == ("42", "a=b", "5")
    assert fields["te"] == "trailers"
    assert not fields.keys() & {"host", "connection", "transfer-encoding"}


def test_a_client_of_http2_is_answered(daemon: Daemon, service: H2Service) -> None:
    """HTTP/2 on both sides."""
    with H2Client(daemon.address) as client:
        assert client.request("POST", "/a", body=b"x" * 300_000).json["body"] == "x" * 300_000


def test_exchanges_share_one_connection(daemon: Daemon, service: H2Service) -> None:
    """Also those that run at the same time; a slow one holds nobody up."""
    held: list[Received] = []

    def behave(received: Received) -> None:
        if received.target == "/slow":
            held.append(received)
        else:
            echo(received)

    service.behave = behave
    before = len(service.conversations)
    with daemon.connect() as slow:
        slow.send(encode("GET", "/slow"))
        eventually(lambda: held)
        for _ in range(3):
            assert daemon.get("/fast").status == 200
        service.behave = lambda received: (held[0].answer(204), echo(received))
        assert daemon.get("/last").status == 200
        assert slow.answer().status == 204
    assert len(service.conversations) - before <= 1


def test_a_try_that_fails_is_reset_and_made_again(daemon: Daemon, service: H2Service) -> None:
    """One that times out, and one whose answer is too long to be discarded; the connection stays."""
    for fail in (lambda _: None, lambda failed: failed.start(503, ("content-length", "100000"))):
        failed: list[Received] = []

        def behave(received: Received, failed: list[Received] = failed, fail: Behaviour = fail) -> None:
            if not failed:
                failed.append(received)
                fail(received)
            elif received is not failed[0]:
                echo(received)

        service.behave = behave
        before = len(service.conversations)
        answer = daemon.request("POST", "/again/a", body=b"sent twice")
        assert (answer.status, answer.json["body"]) == (200, "sent twice")
        eventually(lambda failed=failed: failed[0].reset == CANCEL)  # type: ignore[misc]
        assert len(service.conversations) - before <= 1


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_bodies_arrive_whole_both_ways(daemon: Daemon, service: H2Service, size: int) -> None:
    """Whatever their size is to the windows."""
    body = bytes(byte % 251 for byte in range(size))

    def behave(received: Received) -> None:
        if received.ended:
            received.answer(200, body=bytes(received.body))

    service.behave = behave
    assert daemon.request("POST", "/a", body=body).body == body


def test_the_body_of_unknown_length(daemon: Daemon, service: H2Service) -> None:
    """It comes in pieces from the one side, and goes in pieces to the other."""

    def behave(received: Received) -> None:
        if received.ended:
            assert received.get("content-length") is None
            received.start(200)
            received.send(bytes(received.body))
            received.send(b"", end=True)

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("POST", "/a", "Transfer-Encoding: chunked")).send("3\r\nabc\r\n")
        client.send("2\r\nde\r\n0\r\n\r\n")
        assert client.answer().body == b"abcde"


def test_a_head_without_a_body_is_an_answer(daemon: Daemon, service: H2Service) -> None:
    """HEAD has the length of what it does not bring, and 204 and 304 have nothing."""
    service.behave = lambda received: received.start(200, ("content-length", "1000"), end=True)
    with daemon.connect() as client:
        answer = client.request("HEAD", "/a")
        assert (answer.status, answer.get("content-length")) == (200, "1000")
        service.behave = lambda received: received.start(int((received.target or "")[1:]), end=True)
        for status in (204, 304):
            assert client.get(f"/{status}").status == status


def test_a_service_that_takes_its_time_is_told_apart(daemon: Daemon, service: H2Service) -> None:
    """504 after its timeout, its stream is reset, and the connection goes on."""
    service.behave = lambda received: None
    answer = daemon.get("/a")
    assert (answer.status, answer.code) == (504, "upstream_timeout")
    late = service.last
    service.behave = echo
    before = len(service.conversations)
    assert daemon.get("/b").status == 200
    assert late.reset == CANCEL
    assert len(service.conversations) == before


def test_a_client_that_leaves_ends_its_stream(daemon: Daemon, service: H2Service) -> None:
    """The service need not go on."""
    service.behave = lambda received: None
    with daemon.connect() as client:
        client.send(encode("GET", "/a"))
        eventually(lambda: service.requests)
    eventually(lambda: service.last.reset == CANCEL)


def test_what_the_service_refuses_is_sent_again(daemon: Daemon, service: H2Service) -> None:
    """REFUSED_STREAM says that nothing was done (RFC 9113 §8.7), so that a POST may be repeated, once."""

    def behave(received: Received) -> None:
        if len(service.requests) == 1 and received.ended:
            received.refuse(REFUSED_STREAM)
        elif received.ended:
            echo(received)

    service.behave = behave
    assert daemon.request("POST", "/a", body=b"once").json["body"] == "once"
    service.requests.clear()
    service.behave = lambda received: received.refuse(REFUSED_STREAM) if received.ended else None
    assert daemon.request("POST", "/a", body=b"once").code == "upstream_protocol_error"
    assert len(service.requests) == 2


def test_a_service_that_says_goodbye_loses_nothing(daemon: Daemon, service: H2Service) -> None:
    """What its GOAWAY names is still answered there, what it does not name is sent again elsewhere."""
    held: list[Received] = []

    def behave(received: Received) -> None:
        if not received.ended:
            return
        if received.target == "/first" and not held:
            held.append(received)
        elif received.target == "/second" and received.connection is held[0].connection:
            received.connection.say_goodbye(held[0].stream)
            held[0].answer(200, body=b"first")
        else:
            echo(received)

    service.behave = behave
    with daemon.connect() as first:
        first.send(encode("GET", "/first"))
        eventually(lambda: held)
        assert daemon.request("POST", "/second", body=b"again").json["body"] == "again"
        assert first.answer().body == b"first"


@pytest.mark.parametrize("code", [INTERNAL_ERROR, 11])
def test_a_stream_that_is_reset_is_no_answer(daemon: Daemon, service: H2Service, code: int) -> None:
    """Before its head that is a 502; behind it, the client's connection is cut, so that nothing looks complete."""
    service.behave = lambda received: received.refuse(code) if received.ended else None
    assert daemon.request("POST", "/a", body=b"x").code == "upstream_protocol_error"

    def behave(received: Received) -> None:
        received.start(200, ("content-length", "10"))
        received.send(b"half")
        received.refuse(code)

    service.behave = behave
    with daemon.connect() as client, pytest.raises(Truncated):
        client.get("/a")


def test_an_answer_of_the_wrong_length_is_none(daemon: Daemon, service: H2Service) -> None:
    """A body that is shorter than it says must not look complete."""

    def behave(received: Received) -> None:
        received.start(200, ("content-length", "10"))
        received.send(b"half", end=True)

    service.behave = behave
    with suppress(Truncated):  # the head may have come, and gone on, before
        assert daemon.get("/a").code == "upstream_protocol_error"


def test_a_slow_client_slows_the_service_down(daemon: Daemon, service: H2Service) -> None:
    """What the client does not read stays with the service, and others are answered meanwhile."""
    sent = [0]

    def behave(received: Received) -> None:
        if received.target != "/large":
            echo(received)
            return
        received.start(200)
        state = received.connection.state
        while (room := state.local_flow_control_window(received.stream)) > 0:
            received.send(b"x" * min(room, 16_384))
            sent[0] += min(room, 16_384)

    service.behave = behave
    with daemon.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(encode("GET", "/large"))
        eventually(lambda: sent[0] >= 128 * 1024)
        assert daemon.get("/other").status == 200
        assert sent[0] <= 256 * 1024


def test_a_connection_that_ended_is_replaced(daemon: Daemon, service: H2Service) -> None:
    """What the service had begun to do is not repeated unless that is harmless; the next request gets a new one."""
    assert daemon.get("/warm").status == 200

    def behave(received: Received) -> None:
        if received.ended:
            service.behave = echo
            received.connection.close()

    service.behave = behave
    assert daemon.get("/a").status == 200
    service.behave = behave
    assert daemon.request("POST", "/b", body=b"x").code == "upstream_protocol_error"
    service.behave = echo
    assert daemon.get("/c").status == 200


def test_more_than_a_connection_carries_gets_another(start: Start) -> None:
    """A service that takes two streams at a time is asked for the third on a second connection."""
    held: list[Received] = []
    with closing(H2Service(held.append, most_streams=2)) as service:
        main = {"targets": [service.url], "protocol": "h2c"}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        with daemon.connect() as warm:
            warm.send(encode("GET", "/0"))
            eventually(lambda: len(held) == 1)
            clients = [daemon.connect() for _ in range(2)]
            for client in clients:
                client.send(encode("GET", "/more"))
            eventually(lambda: len(held) == 3)
            assert len(service.conversations) == 2
            for client in clients:
                client.socket.close()


@pytest.mark.parametrize("retry", [None, {"methods": "all"}])
def test_a_head_that_the_service_does_not_take_ends_nobody_elses_exchange(start: Start, retry: object) -> None:
    """Headers larger than the service has said are 431, and are not sent: it might end the connection for them.

    They are no failure of the service, whose other exchanges, and the next, go on. Trailers of that size are dropped.
    """
    held: list[Received] = []
    with closing(H2Service(held.append, largest_head=4096)) as service:
        breaker = {"min_requests": 2, "error_rate": 0.1}
        main = {"targets": [service.url], "protocol": "h2c", "retry": retry, "circuit_breaker": breaker}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        with daemon.connect() as other, daemon.connect() as client:
            other.send(encode("GET", "/held"))
            eventually(lambda: len(held) == 1)
            for body in (b"", b"x" * 100_000):
                for _ in range(5):
                    answer = client.request("POST", "/large", "X-Large: " + "x" * 4000, body=body)
                    assert (answer.status, answer.code) == (431, "headers_too_large")
                    client = client if answer.get("connection") != "close" else daemon.connect()
            service.behave = echo
            assert client.get("/next", "X-Large: " + "x" * 3000).status == 200
            client.send(b"POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
            assert client.send(b"X-Large: %b\r\n\r\n" % (b"x" * 5000)).answer().status == 200
            assert service.last.trailers == []
            held[0].answer(200)
            assert other.answer().status == 200
        assert [received.target for received in service.requests] == ["/held", "/next", "/trailers"]
        assert len(service.conversations) == 1


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1"], []])
def test_over_tls_it_is_chosen_by_alpn(start: Start, tmp_path: Path, alpn: list[str]) -> None:
    """And a service that does not choose it is not spoken to."""
    authority = Authority(tmp_path)
    tls = authority.server(authority.issue("localhost"))
    if alpn:
        tls.set_alpn_protocols(alpn)
    with closing(H2Service(tls=tls)) as service:
        target = service.url.replace("127.0.0.1", "localhost")
        main = {"targets": [target], "protocol": "h2", "tls": {"ca_file": authority.file}}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        answer = daemon.get("/a")
        if alpn == ["h2"]:
            assert dict(answer.json["headers"])[":scheme"] == "https"
        else:
            assert answer.code == "upstream_unreachable"


def test_health_checks_speak_the_protocol_of_the_service(start: Start) -> None:
    """A service that knows HTTP/2 alone is healthy, with many exchanges or with none."""
    with closing(H2Service()) as service:
        check = {"path": "/health", "interval": "100ms", "unhealthy_after": 1}
        main = {"targets": [service.url], "protocol": "h2c", "critical": True, "health_check": check}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        eventually(lambda: sum(received.target == "/health" for received in service.requests) >= 3)
        assert daemon.get("/ready").status == 200
        assert daemon.get("/a").status == 200
        service.behave = lambda received: received.start(500, end=True)
        eventually(lambda: daemon.get("/ready").status == 503)
        assert service.failures == []


def test_a_service_that_speaks_http1_gives_no_answer(start: Start) -> None:
    """It is a 502, and the gateway goes on."""
    with closing(Service()) as service:
        main = {"targets": [service.url], "protocol": "h2c"}
        daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
        for _ in range(2):
            assert daemon.get("/a").status == 502
        service.failures.clear()
