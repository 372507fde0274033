"""The link to something that is no honest Redis, and what it says of it; over real sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.awaiting import until, wait_for, waiting
from support.redis_peer import RedisPeer, ok
from support.redis_server import free_port
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from apigw.config.model import Redis
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import CONNECT_TIMEOUT, RedisLink
from apigw.redis.protocol import MAX_REPLY

TIMEOUT = 0.5


@implementer(ILogObserver)
class Scene:
    """A link to a peer of the test's. The time is the test's; ``said`` is what the log says."""

    def __init__(self) -> None:
        self.time = Clock()
        self.peer = RedisPeer(reactor)
        self.said: list[str] = []
        self.link = self.make(self.peer.url)
        globalLogPublisher.addObserver(self)

    def make(self, url: str, **config: Any) -> RedisLink:
        settings = Redis(url, **{"timeout": TIMEOUT, **config})
        return RedisLink(settings, reactor, self.time)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "apigw.redis.link.RedisLink" and event["log_level"].name == "warn":
            self.said.append(str(event["reason"]))
        assert "log_failure" not in event

    def close(self) -> None:
        globalLogPublisher.removeObserver(self)
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


def said_of(scene: Scene, url: str, **config: Any) -> str:
    """What is said of a first attempt that fails."""
    link = scene.make(url, **config)
    wait_for(link.start())
    wait_for(link.stop())
    assert not link.up
    assert len(scene.said) == 1
    return scene.said[0]


NOBODY = f"redis://127.0.0.1:{free_port()}"
SENTINELS = {"sentinels": (("127.0.0.1", free_port()),), "sentinel_name": "limits"}


@waiting
@pytest.mark.parametrize(
    ("url", "config", "said"),
    [
        (NOBODY, {}, "the connection was refused"),
        ("redis://nowhere.invalid", {}, "its name cannot be resolved"),
        (NOBODY, {"password_file": "/no/file"}, "/no/file does not exist"),
        ("redis://x", SENTINELS, "no sentinel gave the address of the master 'limits'"),
    ],
    ids=["refused", "no such name", "no such file", "no master"],
)
def test_why_there_is_no_connection_in_words(scene: Scene, url: str, config: dict[str, Any], said: str) -> None:
    """Operators read what happened, and not how it is written in Python, or in the resolver."""
    assert said_of(scene, url, **config) == said


@waiting
@pytest.mark.parametrize(
    ("url", "key"),
    [(NOBODY, "password_file"), (NOBODY.replace("redis", "rediss"), "ca_file")],
    ids=["a password", "authorities"],
)
def test_a_pipe_in_place_of_a_file_keeps_nobody(scene: Scene, tmp_path: Path, url: str, key: str) -> None:
    """To open one is to wait for who writes to it, and nobody would be served meanwhile."""
    os.mkfifo(pipe := tmp_path / "pipe")
    assert said_of(scene, url, **{key: str(pipe)}) == f"{pipe} is not a regular file"


@waiting
def test_a_silent_peer_in_words(scene: Scene) -> None:
    """It accepts and answers nothing."""
    scene.peer.answer = lambda words: b""
    started = scene.link.start()
    until(lambda: scene.peer.connections)
    scene.time.advance(CONNECT_TIMEOUT)
    wait_for(started)
    assert scene.said == ["no connection that answers within 2 s"]


@waiting
def test_a_peer_without_tls_in_words(scene: Scene) -> None:
    """It is asked for TLS, and answers in clear."""
    scene.peer.greeting = b"-ERR no TLS here\r\n"
    assert said_of(scene, scene.peer.url.replace("redis", "rediss")).startswith("TLS failed: ")


@waiting
def test_a_peer_that_hangs_up_in_words(scene: Scene) -> None:
    """While it is asked, and later."""

    def hang_up(words: list[bytes]) -> bytes:
        scene.peer.connections[0].transport.loseConnection()
        return b""

    scene.peer.answer = hang_up
    assert said_of(scene, scene.peer.url) == "it closed the connection"


@waiting
def test_the_same_reason_is_said_once(scene: Scene) -> None:
    """One attempt a second writes no line a second."""
    scene.link = scene.make(f"redis://127.0.0.1:{free_port()}")
    wait_for(scene.link.start())
    for _ in range(3):
        scene.time.advance(1)
        until(lambda: scene.link._attempt is None)
    assert scene.said == ["the connection was refused"]


@waiting
def test_calls_wait_for_the_first_attempt_to_connect(scene: Scene) -> None:
    """What comes while Redis is not connected yet is sent when it is, in order."""
    asked: list[bytes] = []

    def note(words: list[bytes]) -> bytes:
        asked.append(words[-1])
        return ok(words)

    scene.peer.answer = note
    started = scene.link.start()
    answers = [scene.link.call(b"GET", b"%d" % number) for number in range(3)]
    assert not any(answer.called for answer in answers)
    wait_for(started)
    assert [wait_for(answer) for answer in answers] == [b"OK"] * 3
    assert asked == [b"PING", b"0", b"1", b"2"]


@waiting
def test_calls_fail_when_the_first_attempt_has_failed(scene: Scene) -> None:
    """And from then on at once, with the reason."""
    scene.link = scene.make(f"redis://127.0.0.1:{free_port()}")
    started = scene.link.start()
    early = scene.link.call(b"GET", b"early")
    assert not early.called
    wait_for(started)
    for answer in (early, scene.link.call(b"GET", b"late")):
        assert answer.called
        with pytest.raises(RedisUnavailable, match="the connection was refused"):
            wait_for(answer)


@waiting
def test_a_call_waits_for_the_first_attempt_no_longer_than_for_an_answer(scene: Scene) -> None:
    """A Redis that accepts and is silent holds up a request by the timeout."""
    scene.peer.answer = lambda words: b""
    scene.link.start()
    answer = scene.link.call(b"GET", b"key")
    scene.time.advance(TIMEOUT - 0.01)
    wait_for(deferLater(reactor, 0.02))
    assert not answer.called
    scene.time.advance(0.01)
    with pytest.raises(RedisUnavailable, match="no answer in time"):
        wait_for(answer)


@waiting
def test_stopping_fails_calls_that_wait_for_the_first_attempt(scene: Scene) -> None:
    """Nothing hangs at the end of the process."""
    scene.peer.answer = lambda words: b""
    scene.link.start()
    answer = scene.link.call(b"GET", b"key")
    wait_for(scene.link.stop())
    with pytest.raises(RedisUnavailable):
        wait_for(answer)


@waiting
def test_a_shorter_timeout_holds_from_the_next_call_on(scene: Scene) -> None:
    """Also when one that waits has a longer one, and when a longer one has just been answered."""
    wait_for(scene.link.start())
    wait_for(scene.link.call(b"GET", b"key"))
    scene.peer.answer = lambda words: b""
    patient = scene.link.call(b"GET", b"key")
    scene.link.timeout = TIMEOUT / 10
    hasty = scene.link.call(b"GET", b"key")
    scene.time.advance(TIMEOUT / 10)
    with pytest.raises(RedisUnavailable):
        wait_for(hasty)
    wait_for(deferLater(reactor, 0))
    assert not patient.called
    scene.time.advance(TIMEOUT)
    with pytest.raises(RedisUnavailable):
        wait_for(patient)


@waiting
def test_who_asks_again_after_a_refusal_keeps_nobody_else_waiting(scene: Scene) -> None:
    """The timer of the new call is not that of those who wait already."""
    wait_for(scene.link.start())
    scene.peer.answer = lambda words: b""
    again: list[Deferred[Any]] = []
    scene.link.call(b"GET", b"one").addErrback(lambda _: again.append(scene.link.call(b"GET", b"again")))
    scene.time.advance(TIMEOUT / 2)
    other = scene.link.call(b"GET", b"other")
    scene.time.advance(TIMEOUT / 2)
    wait_for(deferLater(reactor, 0))
    assert again
    again[0].addErrback(lambda _: None)
    scene.time.advance(TIMEOUT / 2)
    wait_for(deferLater(reactor, 0))
    with pytest.raises(RedisUnavailable, match="no answer in time"):
        assert other.called and wait_for(other)
