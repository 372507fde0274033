"""Calls between the master and its workers, and what is said when one fails."""

from __future__ import annotations

from typing import Any

import pytest
from support.logged import failures, logged
from twisted.internet.testing import StringTransport

from apigw.config.errors import ConfigError, Problem
from apigw.process.control import Control, Refused


class Pair:
    """Two ends. The one calls, and the other raises what the test says."""

    def __init__(self, error: Exception | None) -> None:
        self.one, self.other = Control({}, lambda: None), Control({"do": self.do}, lambda: None)
        self.transports = [StringTransport(), StringTransport()]
        self.error = error
        for end, transport in zip((self.one, self.other), self.transports, strict=True):
            end.makeConnection(transport)

    def do(self, argument: Any, data: bytes) -> Any:
        if self.error is not None:
            raise self.error
        return [argument, len(data)]

    def ask(self) -> Any:
        outcomes: list[Any] = []
        self.one.call("do", "this", b"data").addBoth(outcomes.append)
        self.other.dataReceived(self.transports[0].value())
        self.one.dataReceived(self.transports[1].value())
        return outcomes[0]


def test_a_call_is_answered() -> None:
    """With its argument, and bytes beside it."""
    assert Pair(None).ask() == ["this", 4]


@pytest.mark.parametrize(
    ("error", "failed"),
    [(ConfigError([Problem("is wrong")]), []), (Refused("not now"), []), (KeyError("surprise"), ["'surprise'"])],
    ids=["a configuration that cannot be used", "what is refused", "a mistake"],
)
def test_a_call_that_fails_says_why(error: Exception, failed: list[str]) -> None:
    """The log has what is a mistake of the program, with its traceback, and nothing else."""
    with logged() as events:
        failure = Pair(error).ask()
    assert failure.check(Refused)
    assert str(error) == str(failure.value)
    assert failures(events) == failed
    assert len(events) == len(failed)
