"""One connection that speaks to Redis: txredisapi's protocol, made strict, and the factory that it asks for.

Of txredisapi this takes framing, the queue of replies, AUTH and SELECT. Its pools wait for ever while Redis is down and
stop for good after one refused password, so the supervision is in ``link`` (docs/decisions/redis-client.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from hiredis import pack_command
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from apigw.redis.errors import RedisUnavailable


class ConnectionFactory(Factory):
    """For one connection. ``ready`` fires after AUTH and SELECT; ``reason`` is why the connection ended, in words."""

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
        """The protocol's word for a refused AUTH or SELECT."""
        self._end(Failure(RedisUnavailable(why)))

    def stopTrying(self) -> None:
        """The protocol gives up after a refused AUTH; we do not."""

    def lost(self, why: Failure) -> None:
        self.reason = why.getErrorMessage()
        self._end(Failure(RedisUnavailable(self.reason)))

    def _end(self, outcome: Any) -> None:
        if not self.ready.called:
            self.ready.callback(outcome)


@cache
def _protocol() -> Any:
    # Imported late: txredisapi imports the reactor, which by now somebody has chosen.
    from txredisapi import RedisProtocol

    class Protocol(RedisProtocol):  # type: ignore[misc]  # txredisapi has no types
        def connectionLost(self, why: Failure) -> None:
            self.factory.lost(why)
            super().connectionLost(why)

        def _build_command(self, *words: Any, **_: Any) -> bytes:
            # A tenth of what the general way costs, which asks the type of each word twice.
            packed: bytes = pack_command(words)
            return packed

    return Protocol
