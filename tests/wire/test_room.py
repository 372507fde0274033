"""Where there are as many connections as there may be: which one is closed for a new one, and that none is searched."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hyperframe.frame import PingFrame
from support.http1_server import PEER, Client, Hold, Server
from support.http2_client import Client as H2Client
from support.http2_client import Server as H2Server
from support.http2_client import get, hello, opened

from apigw.wire.channel import Settings
from apigw.wire.room import GRACE

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
LONG = 3600.0


def full(*sent: bytes) -> tuple[Server, list[Client]]:
    """A server with room for no more than these clients, of which each has sent this, a tenth of a second apart."""
    patient = Settings(max_connections=len(sent), client_header_timeout=LONG, client_body_timeout=LONG)
    server = Server(patient, application=Hold)
    clients = []
    for data in sent:
        clients.append(server.connect())
        clients[-1].send(data)
        server.wait(0.1)
    return server, clients


def use(client: Client) -> None:
    """One request, answered."""
    client.send(GET)
    client.server.seen[-1].request.respond(200, [(b"content-length", b"0")], b"")


def left(server: Server, clients: list[Client]) -> int | None:
    """Who had to make room for another connection; -1 where the other was refused."""
    before = [client.end for client in clients]
    if server.factory.buildProtocol(PEER) is None:
        return -1
    ended = [number for number, client in enumerate(clients) if client.end != before[number]]
    return ended[0] if ended else None


def test_while_there_is_room_nobody_leaves() -> None:
    """Idle connections stay as long as there are fewer than there may be."""
    server, clients = full(b"", b"")
    clients[0].transport.disconnect()
    assert left(server, clients) is None


def test_the_longest_idle_leaves_first() -> None:
    """Who asked something lately is likelier to ask again."""
    server, clients = full(b"", b"", b"")
    for number in (0, 1, 2, 0):
        server.wait(1)
        use(clients[number])
    for number in (1, 2, 0):
        assert left(server, clients) == number
        server.connect()


def test_who_leaves_still_gets_its_answer() -> None:
    """A client that has not taken all of its answer yet is closed behind it, unless it does not read at all."""
    for reads in (True, False):
        patient = Settings(max_connections=1, client_body_timeout=30.0)
        server = Server(patient, application=Hold)
        client = server.connect()
        client.transport.stalled = True
        use(client)
        assert server.factory.buildProtocol(PEER) is not None
        if reads:
            client.transport.drain()
            assert (client.receive()[:15], client.end) == (b"HTTP/1.1 200 OK", "closed")
        else:
            server.wait(29.5)
            assert not client.transport.lost
            server.wait(1)
            assert client.end == "aborted"


def test_newcomers_do_not_push_each_other_out() -> None:
    """Silent connections, however many, leave each newcomer the time to ask, and those before it leave in turn."""
    server, clients = full(*[b""] * 5)
    assert left(server, clients) == -1
    server.wait(GRACE)
    for number in range(5):
        assert left(server, clients) == number
        clients.append(server.connect())
    assert left(server, clients) == -1


def test_a_silent_connection_stays_while_others_are_idle() -> None:
    """A handshake that takes long is not ended for a connection that has had its answer."""
    server, clients = full(b"", b"", b"")
    server.wait(LONG / 100)
    use(clients[1])
    assert left(server, clients) == 1
    clients.append(server.connect())
    assert left(server, clients) == 0


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"G", b"PRI * HTTP/2", b"GET /a HTTP/1.1\r\nX-A: b"])
def test_half_a_head_is_like_none(begun: bytes) -> None:
    """Who sends a byte does not hold its place for longer than who sends nothing."""
    server, clients = full(begun)
    server.wait(GRACE - 0.2)
    assert left(server, clients) == -1
    server.wait(0.3)
    assert left(server, clients) == 0


def test_a_second_request_that_has_begun_is_given_time() -> None:
    """A kept-alive connection on which a head arrives in pieces is not cut in the midst of it."""
    server, clients = full(b"")
    use(clients[0])
    server.wait(10)
    clients[0].send(GET[:20])
    assert left(server, clients) == -1
    server.wait(GRACE + 0.1)
    clients[0].send(GET[20:-1])
    assert left(server, clients) == 0


@pytest.mark.parametrize("sent", [GET, PUT, PUT + b"he", GET * 3, WEBSOCKET])
def test_a_request_is_never_cut_for_another(sent: bytes) -> None:
    """Whether it is sent, is being answered, waits behind another, or has become a WebSocket."""
    server, clients = full(sent)
    if sent == WEBSOCKET:
        server.seen[0].request.start_tunnel([])
    server.wait(60)
    assert left(server, clients) == -1


def test_an_answer_that_is_not_read_yet_is_not_cut() -> None:
    """The client has asked, and still reads what it asked for."""
    server, clients = full(GET)
    clients[0].transport.stalled = True
    body = b"x" * 100_000
    server.seen[0].request.respond(200, [(b"content-length", b"%d" % len(body))], body)
    server.wait(60)
    assert left(server, clients) == -1
    clients[0].transport.drain()
    server.wait(0)
    assert left(server, clients) == 0


def test_who_was_refused_has_time_to_read_why() -> None:
    """No reset destroys the answer, and what was refused holds its place no longer than silence does."""
    server, clients = full(b"")
    use(clients[0])
    server.wait(10)
    clients[0].send(b"no request\r\n\r\n")
    assert b"400" in clients[0].receive()
    assert left(server, clients) == -1
    server.wait(GRACE + 0.1)
    assert left(server, clients) == 0


def test_connections_that_end_are_not_closed_for_others() -> None:
    """A place that is free already is not made free again."""
    server, clients = full(b"", b"")
    for client in clients:
        use(client)
    clients[0].transport.disconnect()
    clients.append(server.connect())
    use(clients[2])
    assert left(server, clients) == 1


# HTTP/2.


def h2_full(count: int) -> tuple[H2Server, list[H2Client]]:
    server = H2Server(Settings(max_connections=count), on_request=hello)
    return server, [server.connect() for _ in range(count)]


def h2_left(server: H2Server, clients: list[H2Client]) -> int | None:
    before = [client.pipe.disconnected for client in clients]
    if server.factory.buildProtocol(PEER) is None:
        return -1
    ended = [number for number, client in enumerate(clients) if client.pipe.disconnected != before[number]]
    return ended[0] if ended else None


def test_an_http2_connection_is_idle_behind_its_last_stream() -> None:
    """The longest idle leaves first, and PINGs do not make it less idle."""
    server, clients = h2_full(2)
    clients[0].ask(1, get())
    clients[1].ask(1, get())
    clients[0].send(PingFrame(0, opaque_data=b"12345678"))
    assert h2_left(server, clients) == 0


def test_an_http2_connection_without_a_request_is_like_a_silent_one() -> None:
    """A preface is no request, and neither are pieces of frames."""
    server, clients = h2_full(1)
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    for piece in (ping, ping[:5], ping[5:], ping[:12], ping[12:]):
        clients[0].send_bytes(piece)
        assert h2_left(server, clients) == -1
        server.pass_time(GRACE / 5)
    server.pass_time(0.1)
    assert h2_left(server, clients) == 0


def test_half_a_block_of_http2_is_given_time() -> None:
    """A kept-alive connection on which a request arrives in pieces is not cut in the midst of it."""
    server, clients = h2_full(1)
    (client,) = clients
    client.ask(1, get())
    request = client.headers(3, get()).serialize()
    client.send_bytes(request[:-1])
    assert h2_left(server, clients) == -1
    server.pass_time(GRACE + 0.1)
    client.send_bytes(request[-1:])
    assert client.answer(3)[0] == 200
    assert h2_left(server, clients) == 0


def test_a_stream_is_never_cut_for_a_connection() -> None:
    """One stream that is busy keeps the connection, however many have ended."""
    server, clients = h2_full(1)
    client = opened(clients[0])
    server.on_request = lambda request: None
    client.ask(3, get())
    client.put(1, b"x", end=True)
    server.pass_time(20)
    assert h2_left(server, clients) == -1


# What finding one costs.


def calls(counted: Any) -> int:
    """How many functions one call of ``counted`` calls."""
    count = 0

    def on_event(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        counted()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("busy", [0, 4500, 9000])
def test_a_newcomer_costs_the_same_however_many_there_are(busy: int) -> None:
    """A flood of connections does not make each of them dearer than the one before."""
    server, clients = full(b"")
    server.factory.settings = Settings(max_connections=9000)
    clients += [server.connect() for _ in range(8999)]
    for client in clients[busy:]:
        use(client)
    for client in clients[:busy]:
        client.transport.deliver(GET)
    for number in range(100):
        assert calls(lambda: server.factory.buildProtocol(PEER)) < 100
        if busy < 9000:
            assert clients[busy + number].end == "aborted"
            server.connect().send(GET)
    assert [client.end for client in clients].count("aborted") == (0 if busy == 9000 else 100)
