"""One connection to Redis: txredisapi's protocol, with stricter checks, and a factory for it.

Of txredisapi this takes framing, AUTH and SELECT. Its pools wait for ever while Redis is down and stop for good after
one refused password, so the supervision is in ``link`` (docs/decisions/redis-client.md).
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

from hiredis import pack_command
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from apigw.redis.errors import RedisUnavailable, in_words

MAX_REPLY = 16 * 2**20
"""Bytes of one reply. The longest expected one has 24 for each check of a turn of the reactor: some hundred KiB."""


class ConnectionFactory(Factory):
    """A factory for one connection. ``ready`` fires after AUTH and SELECT; ``reason`` says why the connection ended."""

    noisy = False
    isLazy = False

    def __init__(self, password: bytes | None = None, database: int | None = None) -> None:
        self.ready: Deferred[Any] = Deferred()
        self.reason = ""
        self._login = (password, database)

    def buildProtocol(self, addr: Any) -> Any:
        password, database = self._login
        built = _protocol()(None, "strict", None, password, database, False)
        built.factory = self
        built.whenConnected().addCallback(self._end)
        return built

    def connectionError(self, why: str) -> None:
        """Called by the protocol when AUTH or SELECT is refused."""
        self._end(Failure(RedisUnavailable(why)))

    def stopTrying(self) -> None:
        """Called by the protocol after a refused AUTH. No effect: ``link`` tries again."""

    def lost(self, why: BaseException) -> None:
        self.reason = self.reason or in_words(why)
        self._end(Failure(RedisUnavailable(self.reason)))

    def _end(self, outcome: Any) -> None:
        if not self.ready.called:
            self.ready.callback(outcome)


@cache
def _protocol() -> Any:
    # Imported late: txredisapi imports the reactor, which by now somebody has chosen.
    from txredisapi import ConnectionError, InvalidData, RedisProtocol

    class Protocol(RedisProtocol):  # type: ignore[misc]  # txredisapi has no types
        incomplete = 0
        """Bytes that have come since the last whole reply."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._asked: deque[Deferred[Any]] = deque()

        def dataReceived(self, data: bytes, unpause: bool = False) -> None:
            self.incomplete += len(data)
            if self.incomplete > MAX_REPLY:
                self.give_up(f"it sent a reply of more than {MAX_REPLY >> 20} MiB")
                return
            try:
                super().dataReceived(data)
            except (InvalidData, MemoryError, TypeError, RecursionError):
                # A length is announced that nobody has room for, a key of a map is a list (RESP3), or lists are nested
                # hundreds deep.
                self.give_up("what it sends is not Redis' protocol")

        def replyReceived(self, reply: Any) -> None:
            self.incomplete = 0
            if not self._asked:
                # What has come behind it is not looked at.
                unasked = str(reply) if isinstance(reply, Exception) else "it sent a reply that nobody waits for"
                self.factory.reason = self.factory.reason or unasked
                raise InvalidData
            answer = self._asked.popleft()
            if isinstance(reply, Exception):
                answer.errback(reply)
            else:
                answer.callback(reply)

        def give_up(self, reason: str) -> None:
            self.factory.reason = self.factory.reason or reason
            self.transport.abortConnection()

        def connectionLost(self, why: Failure) -> None:
            self.factory.lost(why.value)
            super().connectionLost(why)
            while self._asked:
                self._asked.popleft().errback(ConnectionError("Lost connection"))

        def execute_command(self, *words: Any, **_: Any) -> Deferred[Any]:
            # The general way asks the type of each word twice, and makes three Deferreds.
            if not self.connected:
                raise ConnectionError("Not connected")
            answer: Deferred[Any] = Deferred()
            self._asked.append(answer)
            self.transport.write(pack_command(words))
            return answer

    return Protocol
