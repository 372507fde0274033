"""HTTP/1.1 towards clients: whatever happens, in whatever order, the tables of states hold, and each has its deadline."""  # noqa: E501

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from support.http1_server import Client, Ignore, Server
from support.state_tables import HTTP1, held_to
from twisted.internet.error import ConnectionLost

from apigw import is_compiled
from apigw.wire.channel import Settings
from apigw.wire.deadlines import NEVER
from apigw.wire.http1 import states
from apigw.wire.http1.connection import LINGER_FOR, SILENCE_FOR
from apigw.wire.http1.states import READING, WRITING
from apigw.wire.request import Request
from apigw.wire.tunnel import End

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SENT = (
    GET,
    GET[:20],
    GET[20:],
    GET * 40,
    GET * 3 + GET[:9],
    b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"\r\n",
    b"\0",
    PUT + b"\r\n",
    PUT + b"\r\n123456789" + GET,
    PUT + b"Expect: 100-continue\r\n\r\n",
    PUT.replace(b"9", b"99999") + b"\r\n",
    b"1234",
    b"123456789",
    CHUNKED,
    CHUNKED + b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    WEBSOCKET,
)
HEADER, BODY, KEEPALIVE = 10.0, 30.0, 75.0
PATIENCE = {
    states.IDLE: KEEPALIVE,
    states.HEAD: HEADER,
    states.BODY: BODY,
    states.ENDED: SILENCE_FOR,
    states.REST: BODY,
    states.LINGER: LINGER_FOR,
    states.CLOSING: BODY,
}
"""How long each state lasts in which the client has to act; the others have no end of their own."""


class Application(Ignore):
    """Answers at once, or does what the walk says."""

    at_once = False
    tunnels: ClassVar[list[End]] = []

    def begin(self) -> None:
        super().begin()
        if Application.at_once:
            self.request.read_body()

    def body_finished(self) -> None:
        self.complete = True
        if Application.at_once and not self.request.started:
            respond(self.request)


def respond(request: Request) -> None:
    if not request.started:
        request.respond(200, [(b"content-length", b"2")], b"ok")


def begin(request: Request) -> None:
    if not request.started:
        request.start(200, [])


def begin_nothing(request: Request) -> None:
    if not request.started:
        request.start(304, [])


def write(request: Request) -> None:
    begin(request)
    request.write(b"x" * 70_000)
    request.flush()


def finish(request: Request) -> None:
    begin(request)
    request.finish()


def tunnel(request: Request) -> None:
    if request.upgrade and not request.started:
        Application.tunnels.append(request.start_tunnel([]))


def read(request: Request) -> None:
    if not request.body_wanted:
        request.read_body()


ANSWERS: tuple[Callable[[Request], None], ...] = (
    respond,
    respond,
    begin,
    begin_nothing,
    write,
    finish,
    tunnel,
    read,
    read,
    Request.pause_body,
    Request.resume_body,
    Request.abort,
)


def step(chance: random.Random, client: Client) -> None:
    """Something happens: on the client's side, in the application, or with time."""
    server, transport = client.server, client.transport
    kind = chance.randrange(20)
    if kind < 8:
        if not (transport.lost or transport.aborted or transport.ended):
            data = chance.choice(SENT)
            # By one way the reactor then turns; by the other, which is that of TLS, data comes in spite of a pause.
            chance.choice([client.send, transport.protocol.dataReceived])(data)
    elif kind < 14:
        requests = [seen.request for seen in server.seen if not seen.request.finished]
        if requests and not transport.lost:
            chance.choice(ANSWERS)(requests[-1])
    elif kind < 16:
        server.wait(chance.choice([0, 0, 1, LINGER_FOR, HEADER, BODY, KEEPALIVE]) + 0.2)
    elif kind == 16:
        transport.stalled = True
    elif kind == 17:
        if not transport.lost:
            transport.drain(chance.choice([1, 1000, None, None]))
    elif kind == 18:
        chance.choice([transport.end, transport.end, lambda: transport.disconnect(ConnectionLost())])()
    else:
        Application.at_once = chance.random() < 0.5
        if chance.random() < 0.1:
            server.factory.drain()
        while Application.tunnels:
            Application.tunnels.pop().close()


def has_its_deadline(server: Server, channel: Any) -> bool:
    """Whether the deadline is that of the state, which may have been entered some time ago."""
    state = channel._state
    patience = BODY if channel._full and state != states.OVER else PATIENCE.get(state)
    if patience is None:
        return bool(channel.deadline == NEVER)
    return bool(channel.deadline <= server.clock.seconds() + patience)


@pytest.mark.skipif(is_compiled(), reason="nobody can look into what is compiled")
def test_any_walk_keeps_to_the_tables_and_all_of_them_is_walked() -> None:
    """No change of state but those in the tables, none there that cannot happen, and each state has its deadline."""
    settings = Settings(client_header_timeout=HEADER, client_body_timeout=BODY, keepalive_timeout=KEEPALIVE)
    with held_to(HTTP1) as (reading, writing):
        for seed in range(3000):
            chance = random.Random(seed)
            Application.at_once = bool(seed % 2)
            Application.tunnels.clear()
            server = Server(settings, application=Application)
            client = server.connect()
            for _ in range(chance.randrange(2, 25)):
                step(chance, client)
                for channel in server.factory.channels:
                    assert channel.version == "opening" or has_its_deadline(server, channel), seed
    for table, made in ((READING, reading), (WRITING, writing)):
        possible = {(before, after) for before, those in table.items() for after in those}
        assert made == possible, possible - made
