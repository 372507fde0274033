"""A peer that is taken for Redis: it answers each command with what the test says, and may speak unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.protocol import Factory, Protocol

Answer = Callable[[list[bytes]], bytes]
"""From the words of a command to the bytes of a reply; none where there is no reply."""


def ok(words: list[bytes]) -> bytes:
    return b"+OK\r\n"


class RedisPeer(Factory):
    """``answer`` may be replaced at any time; ``connections`` are those that are open.

    With a ``greeting`` that is all it says, and commands are not read.
    """

    noisy = False

    def __init__(self, reactor: Any, answer: Answer = ok) -> None:
        self.answer = answer
        self.greeting = b""
        self.connections: list[Connection] = []
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.url = f"redis://127.0.0.1:{self._port.getHost().port}"

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self)

    def say(self, data: bytes) -> None:
        """Write to every connection."""
        for connection in self.connections:
            connection.transport.write(data)

    async def close(self) -> None:
        await self._port.stopListening()
        for connection in self.connections:
            connection.transport.abortConnection()


class Connection(Protocol):
    transport: Any

    def __init__(self, peer: RedisPeer) -> None:
        self._peer = peer
        self._reader = hiredis.Reader()

    def connectionMade(self) -> None:
        self._peer.connections.append(self)
        self.transport.write(self._peer.greeting)

    def connectionLost(self, reason: Any = None) -> None:
        self._peer.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        if self._peer.greeting:
            return
        self._reader.feed(data)
        while (words := self._reader.gets()) is not False:
            self.transport.write(self._peer.answer(words))
