"""An idle TLS connection with a session ticket that nobody has read is as good as any other."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from twisted.internet.interfaces import ITransport
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.reactor.connecting import OneConnection


@implementer(ITransport)
class Socket:
    """As much of a TCP transport as TLS needs; it reads when it is told to."""

    disconnecting = False
    connected = True

    def __init__(self, clock: Clock, connected: socket.socket) -> None:
        self.reactor = clock
        self.socket = connected
        self.protocol: Any = None

    def getHandle(self) -> socket.socket:
        return self.socket

    def doRead(self) -> Any:
        data = self.socket.recv(65536)
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    abortConnection = loseConnection

    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def getPeer(self) -> Any: ...
    def getHost(self) -> Any: ...


class Scene:
    """A connection that is idle, and of the server's bytes those that came after the handshake still unread."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        context = authority.server(authority.issue("good.test"))
        incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(incoming, self._outgoing, server_side=True)
        ours, self.theirs = socket.socketpair()
        clock = Clock()
        self.connection = HTTP1Connection(Deadlines(clock), *[lambda _: None] * 3)
        factory = TLSMemoryBIOFactory(ClientTLS(authority.file).to("good.test"), True, OneConnection(self.connection))
        self.transport = Socket(clock, ours)
        self.transport.protocol = factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)
        done = False
        while not done:
            incoming.write(self.theirs.recv(65536))
            try:
                self.server.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                self.flush()
                self.transport.doRead()
        self.flush()

    def flush(self) -> None:
        self.theirs.sendall(self._outgoing.read())

    def close(self) -> None:
        self.theirs.close()
        self.transport.socket.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_a_ticket_is_no_answer(scene: Scene) -> None:
    """It is read, and the connection given out."""
    assert scene.server.version() == "TLSv1.3"
    assert scene.connection.when_ready.called
    assert scene.connection.is_quiet()
    assert scene.connection.is_quiet()


@pytest.mark.parametrize("what", ["answer", "good-bye", "end"])
def test_what_comes_behind_a_ticket_counts(scene: Scene, what: str) -> None:
    """Bytes that nobody asked for, the end of TLS, or of the connection."""
    if what == "answer":
        scene.server.write(b"HTTP/1.1 200 OK\r\n\r\n")
    elif what == "good-bye":
        with pytest.raises(ssl.SSLWantReadError):
            scene.server.unwrap()
    scene.flush()
    if what == "end":
        scene.theirs.close()
    assert not scene.connection.is_quiet()
