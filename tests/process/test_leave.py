"""A worker's last word."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from apigw.process.worker import LAST_WORD, leave


class Machine:
    """Of which the master's answer comes when the test says so."""

    def __init__(self) -> None:
        self.control = self
        self.told: list[tuple[str, Any]] = []
        self.answer: Deferred[Any] = Deferred()

    def give(self, question: str, argument: Any) -> Deferred[str]:
        return succeed("all of it")

    def call(self, what: str, said: str) -> Deferred[Any]:
        self.told.append((what, said))
        return self.answer


def test_the_end_comes_in_a_turn_of_its_own() -> None:
    """While the master's answer is read, the connection that it comes by is not closed."""
    machine: Any = Machine()
    clock = Clock()
    ended: list[object] = []
    leave(machine, clock).addCallback(ended.append)
    assert machine.told == [("leave", "all of it")]
    machine.answer.callback(None)
    assert not ended
    clock.advance(0)
    assert ended == [None]


def test_a_master_that_does_not_answer_is_not_awaited() -> None:
    """The worker ends all the same."""
    machine: Any = Machine()
    clock = Clock()
    ended: list[object] = []
    leave(machine, clock).addCallback(ended.append)
    clock.pump([LAST_WORD, 0])
    assert ended == [None]
