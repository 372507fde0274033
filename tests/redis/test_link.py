"""The link to something that is no honest Redis, and what it says of it; over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.awaiting import wait_for, waiting
from support.redis_peer import RedisPeer
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, globalLogPublisher

from apigw.config.model import Redis
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import Execute, RedisLink
from apigw.redis.protocol import MAX_REPLY

TIMEOUT = 0.5


async def ping(execute: Execute) -> None:
    await execute(b"PING")


def until(condition: Callable[[], Any]) -> None:
    for _ in range(2_000):
        if condition():
            return
        wait_for(deferLater(reactor, 0.01))
    raise AssertionError("waited in vain")


class Scene:
    """A link to a peer of the test's. The time is the test's."""

    def __init__(self) -> None:
        self.time = Clock()
        self.peer = RedisPeer(reactor)
        self.said: list[str] = []
        self.link = self.make(self.peer.url)
        globalLogPublisher.addObserver(self._hear)

    def make(self, url: str, **config: Any) -> RedisLink:
        settings = Redis(url, **{"timeout": TIMEOUT, **config})
        return RedisLink(settings, reactor, self.time, ping, lambda up: None)

    def _hear(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "apigw.redis.link.RedisLink" and event["log_level"].name == "warn":
            self.said.append(str(event["reason"]))
        assert "log_failure" not in event

    def close(self) -> None:
        globalLogPublisher.removeObserver(self._hear)
        wait_for(self.link.stop())
        wait_for(ensureDeferred(self.peer.close()))
        assert not self.time.getDelayedCalls()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    # In a greenlet of its own, as the fixture's end has none.
    wait_for(closed(scene))


def closed(scene: Scene) -> Deferred[Any]:
    @waiting
    def close() -> None:
        scene.close()

    return close()


@waiting
def test_a_reply_without_end_is_not_taken_in(scene: Scene) -> None:
    """A reply, asked for or not, has a bound: beyond it the connection ends, and the operator is told why."""
    wait_for(scene.link.start())
    assert scene.link.up
    scene.peer.say(b"$1500000000\r\n" + bytes(MAX_REPLY + 2**20))
    until(lambda: not scene.link.up)
    assert scene.said == ["it sent a reply of more than 16 MiB"]
    until(lambda: not scene.peer.connections)


@waiting
def test_a_long_reply_within_the_bound_is_taken(scene: Scene) -> None:
    """So are many, one after the other."""
    wait_for(scene.link.start())
    length = MAX_REPLY - 100
    scene.peer.answer = lambda words: b"$%d\r\n%b\r\n" % (length, bytes(length))
    for _ in range(3):
        assert len(wait_for(scene.link.call(b"GET", b"long"))) == length
    assert scene.link.up


@waiting
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"+hello\r\n", "it sent a reply that nobody waits for"),
        (b"-ERR max number of clients reached\r\n", "ERR max number of clients reached"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what it sends is not Redis' protocol"),
    ],
)
def test_what_nobody_asked_for_ends_the_connection(scene: Scene, data: bytes, reason: str) -> None:
    """It would be taken for the answer to the next command."""
    wait_for(scene.link.start())
    scene.peer.say(data)
    until(lambda: not scene.link.up)
    assert scene.said == [reason]
    with pytest.raises(RedisUnavailable):
        wait_for(scene.link.call(b"GET", b"key"))
    scene.time.advance(1)
    until(lambda: scene.link.up)
