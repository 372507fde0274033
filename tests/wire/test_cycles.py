"""A connection that is over is freed at once, without the garbage collector (docs/decisions/garbage.md)."""

from __future__ import annotations

import gc
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from support.certificates import Authority
from support.upstream import Recorder
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import _WrappingProtocol
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers
from zope.interface import directlyProvides

from apigw.wire.agent import Agent, endpoint_to, http1_pool
from apigw.wire.agent_response import KEPT_BODY
from apigw.wire.calls import WholeBody
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.fetch import Answered, Ask
from apigw.wire.http2.streams import http2_pool
from apigw.wire.interfaces import Connections, UpstreamConnection
from apigw.wire.negotiated import negotiated_pool
from apigw.wire.pool import PoolSettings
from apigw.wire.reactor import epoll
from apigw.wire.reactor.ports import serve
from apigw.wire.request import Request
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory
from apigw.wire.tunnel import join

PATIENCE = 20.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = GET[:-2] + b"Connection: close\r\n\r\n"
UPGRADE = GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
LONG = b"x" * 4 * KEPT_BODY
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


class Upgraded(Recorder):
    """The receiver of a WebSocket's handshake, which joins both sides."""

    def __init__(self, request: Request, connection: UpstreamConnection, deadlines: Deadlines) -> None:
        super().__init__()
        self.request, self.connection, self.deadlines = request, connection, deadlines

    def response_started(self, status: int, reason: bytes, headers: Any) -> None:
        upstream = self.connection.give_up()
        join(self.request.start_tunnel([]), upstream, self.deadlines, 60.0)


class Ignored:
    """A listener of what nobody reads."""

    def body_received(self, data: bytes) -> None: ...
    def body_finished(self) -> None: ...
    def client_failed(self, error: Refused | ClientLost) -> None: ...


@define
class Gateway:
    """A server and, for itself, a client, on a reactor that the test turns."""

    authority: Authority
    reactor: Any = field(factory=epoll._make)
    service: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    deadlines: Deadlines = field(init=False)
    channels: ChannelFactory = field(init=False)
    pools: dict[object, Connections] = field(factory=dict)
    endpoints: dict[object, IStreamClientEndpoint] = field(factory=dict)
    to_service: IStreamClientEndpoint = field(init=False)
    to_nobody: IStreamClientEndpoint = field(init=False)
    plain: Any = field(init=False)
    secure: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor.startRunning(installSignalHandlers=False)
        self.deadlines = Deadlines(self.reactor)
        refused = lambda *_: (400, [(b"content-length", b"0")], b"")  # noqa: E731
        self.channels = ChannelFactory(Settings(), self.deadlines, self.answer, refused, lambda: 0.0)
        self.to_service = endpoint_to(self.reactor, "127.0.0.1", self.service.getsockname()[1], PATIENCE, None)
        self.to_nobody = endpoint_to(self.reactor, "127.0.0.1", 1, PATIENCE, None)
        pair = self.authority.issue("localhost")
        self.plain = self.listen(self.channels)
        contexts = ServerContexts([KeyPair(pair.certificate, pair.key)])
        self.secure = self.listen(TLSFactory(contexts, self.channels))

    def endpoint(self, scheme: bytes, http2: bool) -> IStreamClientEndpoint:
        """The server's, made once."""
        if (scheme, http2) not in self.endpoints:
            port = self.plain if scheme == b"http" else self.secure
            protocols = [b"h2", b"http/1.1"] if http2 else [b"http/1.1"]
            tls = None if scheme == b"http" else ClientTLS(self.authority.file, protocols=protocols).to("localhost")
            made = endpoint_to(self.reactor, "127.0.0.1", port.getHost().port, PATIENCE, tls)
            self.endpoints[scheme, http2] = made
        return self.endpoints[scheme, http2]

    def listen(self, factory: Any) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            return serve(self.reactor, listening, factory)

    def answer(self, request: Request) -> None:
        if not request.upgrade:
            request.respond(200, [], LONG if request.path == b"/long" else b"ok")
            return
        request.listener = Ignored()
        pool = http1_pool(self.deadlines, b"http", self.to_service, PoolSettings())

        def shake(connection: UpstreamConnection) -> None:
            receiver = Upgraded(request, connection, self.deadlines)
            connection.send(b"GET", b"/", b"a", [], 0, True, PATIENCE, receiver)
            connection.finish()

        pool.connect().addCallback(shake)

    def until(self, done: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, "nothing happens"
            self.reactor.iterate(0.01)

    def close(self) -> None:
        for port in (self.plain, self.secure):
            port.stopListening()
        self.service.close()
        self.reactor.removeAll()
        for _ in range(3):
            self.reactor.iterate(0)
        self.reactor._poller.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(Authority(Path(tmp_path_factory.mktemp("keys"))))
    yield made
    made.close()


def client_of(port: Any, *sent: bytes, leave: bool = False, reset: bool = False) -> Callable[[Gateway], None]:
    """A client that sends, reads what comes, and closes, or waits for the end."""

    def run(gateway: Gateway) -> None:
        address = ("127.0.0.1", getattr(gateway, port).getHost().port)
        with socket.create_connection(address) as client:
            client.setblocking(False)
            gateway.until(lambda: gateway.channels.channels)
            for piece in sent:
                client.sendall(piece)
                gateway.until(lambda: readable(client))
                if leave:
                    client.recv(65536)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if not leave:
                gateway.until(lambda: readable(client) and not client.recv(65536))
        gateway.until(lambda: not gateway.channels.channels)

    return run


def readable(client: socket.socket) -> bool:
    try:
        client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def service_of(make: Any, scheme: bytes) -> Callable[[Gateway], None]:
    """An exchange with the server as a service, whose connection then ends."""

    def run(gateway: Gateway) -> None:
        key = (make, scheme)
        if key not in gateway.pools:
            endpoint = gateway.endpoint(scheme, make is not http1_pool)
            gateway.pools[key] = make(gateway.deadlines, scheme, endpoint, PoolSettings())
        pool = gateway.pools[key]
        given: list[UpstreamConnection] = []
        pool.connect().addCallback(given.append)
        gateway.until(lambda: given)
        receiver = Recorder()
        given[0].send(b"GET", b"/", b"localhost", [], 0, False, PATIENCE, receiver)
        given[0].finish()
        gateway.until(lambda: receiver.end)
        assert receiver.status == 200
        given.clear()
        gateway.channels.cut()
        gateway.until(lambda: not pool.connections and not gateway.channels.channels)

    return run


def no_service(gateway: Gateway) -> None:
    """A connection that the service refuses."""
    failed: list[object] = []
    pool = http1_pool(gateway.deadlines, b"http", gateway.to_nobody, PoolSettings())
    pool.connect().addErrback(lambda failure: failed.append(1))
    gateway.until(lambda: failed)


def call_of(path: str, data: bytes | None) -> Callable[[Gateway], None]:
    """What the gateway asks for itself, by treq."""

    def run(gateway: Gateway) -> None:
        agent = Agent(gateway.reactor, gateway.deadlines, lambda host: ClientTLS().to(host))
        url = f"http://127.0.0.1:{gateway.plain.getHost().port}{path}"
        asking = Ask(agent, len(LONG))(url, Headers(), None if data is None else WholeBody(data))
        answers: list[Answered] = []
        Deferred.fromCoroutine(asking).addCallback(answers.append)
        gateway.until(lambda: answers)
        assert answers[0].status == 200
        agent.close()
        gateway.until(lambda: not gateway.channels.channels)

    return run


def websocket(gateway: Gateway) -> None:
    """A client and a service that shake hands, talk, and part."""
    address = ("127.0.0.1", gateway.plain.getHost().port)
    gateway.service.setblocking(False)
    with socket.create_connection(address) as client:
        client.setblocking(False)
        client.sendall(UPGRADE)
        accepted: list[socket.socket] = []

        def came() -> bool:
            try:
                accepted.append(gateway.service.accept()[0])
            except BlockingIOError:
                return False
            return True

        gateway.until(came)
        with accepted.pop() as service:
            service.setblocking(False)
            gateway.until(lambda: readable(service))
            service.sendall(SWITCH + b"hello")
            gateway.until(lambda: readable(client) and client.recv(65536).endswith(b"hello"))
        gateway.until(lambda: readable(client) and not client.recv(65536))
    gateway.until(lambda: not gateway.channels.channels)


CASES = {
    "silent": client_of("plain", leave=True),
    "closed by the server": client_of("plain", CLOSE),
    "closed by the client": client_of("plain", GET, GET, leave=True),
    "reset by the client": client_of("plain", GET, leave=True, reset=True),
    "refused": client_of("plain", b"GET / HTTP/9.9\r\n\r\n"),
    "no TLS": client_of("secure", GET),
    "HTTP/1.1": service_of(http1_pool, b"http"),
    "HTTP/2": service_of(http2_pool, b"http"),
    "HTTP/1.1 over TLS": service_of(http1_pool, b"https"),
    "HTTP/2 over TLS": service_of(negotiated_pool, b"https"),
    "refused by the service": no_service,
    "websocket": websocket,
    "a call": call_of("/", None),
    "a call with a body": call_of("/", b"x" * 1000),
    "a call with a long answer": call_of("/long", None),
}


@define
class Declared:
    """Twisted's endpoints declare this for each connection. While one is so declared, it is the same for all."""

    wrapper: _WrappingProtocol

    @classmethod
    def once(cls) -> Declared:
        wrapper = _WrappingProtocol(Deferred(), Protocol())
        directlyProvides(wrapper, IHandshakeListener)
        return cls(wrapper)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_for_the_collector(gateway: Gateway, case: str) -> None:
    """A connection to a client or to a service leaves no cycle when it is over."""
    run = CASES[case]
    declared = Declared.once()
    run(gateway)  # what is made once is made
    gateway.reactor.iterate(0)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(3):
            run(gateway)
        gateway.reactor.iterate(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
    assert not left
    assert declared
