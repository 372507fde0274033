"""The control connection: calls and their answers, whatever the other side says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.logged import failures, logged
from support.turning import Turning
from twisted.internet.error import ConnectionLost

from apigw.config.errors import ConfigError, Problem
from apigw.process.control import Control, Refused, connect


class Pair:
    """Two ends, over a real socket pair."""

    def __init__(self, gives: dict[str, Any], most: int = 1 << 20) -> None:
        self.reactor: Any = Turning()
        self.lost: list[str] = []
        ends = socket.socketpair()
        self.one = Control({}, lambda: self.lost.append("one"))
        self.other = Control(gives, lambda: self.lost.append("other"), most)
        for end, control in zip(ends, (self.one, self.other), strict=True):
            connect(self.reactor, end, control)

    def outcome(self, what: str, argument: Any = None, data: bytes = b"") -> Any:
        """Of a call by the one end."""
        found: list[Any] = []
        self.one.call(what, argument, data).addBoth(found.append)
        self.reactor.turn_until(lambda: found)
        return found[0]


@pytest.fixture
def pair() -> Iterator[Pair]:
    def fails(*_: object) -> None:
        raise ValueError("it is full")

    yield Pair({"double": lambda number, _: 2 * number, "length": lambda _, data: len(data), "fails": fails})


def test_a_call_is_answered(pair: Pair) -> None:
    assert pair.outcome("double", 21) == 42
    assert pair.outcome("length", data=b"\n\0 bytes") == 8


@pytest.mark.parametrize(("what", "why"), [("fails", "it is full"), ("unheard", "unheard is not known here")])
def test_a_call_that_cannot_be_answered_says_why(pair: Pair, what: str, why: str) -> None:
    """And the next one is answered."""
    failure = pair.outcome(what)
    assert failure.check(Refused) and str(failure.value) == why
    assert pair.outcome("double", 1) == 2


def test_who_waits_for_one_that_ends_is_told(pair: Pair) -> None:
    pair.other.close()
    failure = pair.outcome("double", 1)
    assert failure.check(ConnectionLost)
    assert pair.outcome("double", 1).check(ConnectionLost)
    assert "one" in pair.lost


def test_a_message_that_is_too_long_ends_the_connection() -> None:
    pair = Pair({}, most=1000)
    assert pair.outcome("double", "x" * 1000).check(ConnectionLost)


@pytest.mark.parametrize(
    ("error", "failed"),
    [(ConfigError([Problem("is wrong")]), []), (Refused("not now"), []), (KeyError("surprise"), ["'surprise'"])],
    ids=["a configuration that cannot be used", "what is refused", "a mistake"],
)
def test_the_log_has_what_is_a_mistake_of_the_program(error: Exception, failed: list[str]) -> None:
    """With its traceback, and nothing else."""

    def fails(*_: object) -> None:
        raise error

    with logged() as events:
        failure = Pair({"fails": fails}).outcome("fails")
    assert str(failure.value) == str(error)
    assert failures(events) == failed
    assert len(events) == len(failed)
