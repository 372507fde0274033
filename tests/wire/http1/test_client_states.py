"""The states of a connection to a service: no other follows than its tables say, and each of those does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.upstream import TIMEOUT, Recorder, Upstream, send
from twisted.internet.error import ConnectionLost

from apigw import is_compiled
from apigw.wire.deadlines import NEVER
from apigw.wire.http1.client import (
    BUSY,
    CLOSING,
    CLOSING_TIME,
    CONNECTING,
    CONNECTION,
    IDLE,
    LOST,
    REQUEST,
    SENDING,
    SENT,
    HTTP1Connection,
)
from apigw.wire.http1.response import RESPONSE, ResponseReader

recorded = pytest.mark.skipif(is_compiled(), reason="what is compiled sets its attributes unseen")

Change = tuple[int, int]

KEPT = 4.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
SWITCH = b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def steps(table: dict[int, set[int]]) -> set[Change]:
    return {(state, following) for state, all_following in table.items() for following in all_following}


class Changes:
    """Every change of state that there was."""

    def __init__(self) -> None:
        self.of: dict[str, set[Change]] = {"connection": set(), "request": set(), "response": set()}

    def note(self, which: str, changed: object, attribute: str, value: int) -> None:
        before = getattr(changed, attribute, None)
        if before is not None and before != value:
            self.of[which].add((before, value))

    def check(self) -> None:
        assert self.of["connection"] <= steps(CONNECTION)
        assert self.of["request"] <= steps(REQUEST)
        assert self.of["response"] <= steps(RESPONSE)


class Watched(Upstream):
    """A connection whose changes of state are noted."""

    def __init__(self, changes: Changes) -> None:
        class Reader(ResponseReader):
            def __setattr__(self, name: str, value: Any) -> None:
                if name == "state":
                    changes.note("response", self, name, value)
                super().__setattr__(name, value)

        class Connection(HTTP1Connection):
            def __setattr__(self, name: str, value: Any) -> None:
                if name in ("_state", "_request"):
                    changes.note("connection" if name == "_state" else "request", self, name, value)
                super().__setattr__(name, value)

        def made(*arguments: Any) -> Connection:
            connection = Connection(*arguments)
            connection._response = Reader()
            return connection

        super().__init__(make=made)


class Willing(Recorder):
    """A receiver that takes the tunnel which it is offered."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = upstream

    def response_started(self, status: int, *rest: Any) -> None:
        super().response_started(status, *rest)
        if status == 101:
            self.upstream.connection.give_up()

    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...


def begin(upstream: Upstream) -> None:
    if upstream.connection._state == IDLE:
        send(upstream.connection, Willing(upstream), b"POST", length=None, upgrade=True)


def is_sending(upstream: Upstream) -> bool:
    return upstream.connection._request == SENDING


def keep(upstream: Upstream) -> None:
    """As the pool does with one that is free."""
    if upstream.connection.usable:
        upstream.connection.deadline = upstream.clock.seconds() + KEPT


Action = Callable[[Upstream], object]
ACTIONS: dict[str, Action] = {
    "send": begin,
    "write": lambda upstream: is_sending(upstream) and upstream.connection.write(b"x" * 50_000),
    "finish": lambda upstream: is_sending(upstream) and upstream.connection.finish(),
    "pause": lambda upstream: upstream.connection.pause_response(),
    "resume": lambda upstream: upstream.connection.resume_response(),
    "abandon": lambda upstream: upstream.connection.abandon(),
    "close": lambda upstream: upstream.connection.close(),
    "wait": lambda upstream: upstream.wait(TIMEOUT * 1.1),
    "idle": lambda upstream: keep(upstream),
    "the service stalls": lambda upstream: setattr(upstream.transport, "stalled", True),
    "the service reads": lambda upstream: upstream.transport.drain(),
    "the service closes": lambda upstream: upstream.close(),
    "the network breaks": lambda upstream: upstream.close(ConnectionLost()),
    "answer": lambda upstream: upstream.say(ANSWER),
    "head": lambda upstream: upstream.say(ANSWER[:-2]),
    "byte": lambda upstream: upstream.say(b"H"),
    "junk": lambda upstream: upstream.say(b"\0\r\n\r\n"),
    "interim": lambda upstream: upstream.say(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "to the end": lambda upstream: upstream.say(b"HTTP/1.1 200 OK\r\n\r\nhi"),
    "switch": lambda upstream: upstream.say(SWITCH),
}


def check_deadline(upstream: Upstream) -> None:
    """The deadline is that of what is waited for now, and of nothing before it."""
    connection = upstream.connection
    left = connection.deadline - upstream.clock.seconds()
    state = connection._state
    if state == BUSY:
        waits = connection._request == SENT or connection._writing_paused
        waits = waits and not connection._reading_paused
        assert -0.1 <= left <= TIMEOUT if waits else left == NEVER
    elif state == IDLE:
        assert left == NEVER or left <= KEPT
    elif state == CLOSING:
        assert left == NEVER or left <= CLOSING_TIME
    else:
        assert left == NEVER


@recorded
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=15))
def test_nothing_leaves_the_tables(actions: list[str]) -> None:
    """Whatever the proxy, the service and time do, in whatever order."""
    changes = Changes()
    upstream = Watched(changes)
    for action in ["send", *actions]:
        ACTIONS[action](upstream)
        check_deadline(upstream)
    changes.check()


WAYS = [
    ["send", "finish", "answer", "send", "finish", "head", "the network breaks"],
    ["send", "write", "answer", "wait"],
    ["send", "finish", "head", "pause", "resume", "abandon"],
    ["send", "the service stalls", "write", "write", "the service reads", "finish"],
    ["send", "abandon", "wait"],
    ["send", "byte", "abandon"],
    ["send", "finish", "to the end", "the service closes"],
    ["send", "finish", "switch", "close", "wait"],
    ["send", "finish", "switch", "the service closes"],
    ["close", "wait"],
    ["the service closes"],
]


@recorded
def test_every_change_in_the_tables_happens() -> None:
    """A line of a table that nothing ever does would say less than nothing."""
    changes = Changes()
    for way in WAYS:
        upstream = Watched(changes)
        for action in way:
            ACTIONS[action](upstream)
            check_deadline(upstream)
    assert changes.of["request"] == steps(REQUEST)
    assert changes.of["response"] == steps(RESPONSE)
    over_tls = {(CONNECTING, CLOSING), (CONNECTING, LOST)}  # where connected is not yet ready
    assert changes.of["connection"] == steps(CONNECTION) - over_tls


def test_what_makes_no_sense_is_refused() -> None:
    """A second exchange beside the first, the end of a request that has ended, a tunnel that is none."""
    upstream = Upstream()
    upstream.ask()
    with pytest.raises(RuntimeError):
        send(upstream.connection, Recorder())
    with pytest.raises(RuntimeError):
        upstream.connection.finish()
    with pytest.raises(RuntimeError):
        upstream.connection.give_up()
    upstream.say(ANSWER)
    with pytest.raises(RuntimeError):
        upstream.connection.write(b"x")
    upstream.close()
    assert upstream.connection._state == LOST
    with pytest.raises(RuntimeError):
        send(upstream.connection, Recorder())
