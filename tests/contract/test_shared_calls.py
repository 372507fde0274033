"""A call that several wait for is made once, and given up when all of them have left."""

from __future__ import annotations

import time
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from apigw.contract.shared_calls import SharedCalls


class Calls:
    def __init__(self) -> None:
        self.calls = SharedCalls()
        self.made: list[Deferred[str]] = []
        self.cancelled = 0

    def join(self, key: bytes = b"a") -> list[Any]:
        """What has come of it so far."""
        outcome: list[Any] = []
        self.calls.join(key, self._begin).addBoth(outcome.append)
        return outcome

    def _begin(self) -> Deferred[str]:
        self.made.append(Deferred(self._cancel))
        return self.made[-1]

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


def test_one_call_answers_all() -> None:
    """Who asks while it is under way gets its result; who asks later asks anew."""
    calls = Calls()
    outcomes = [calls.join(), calls.join(), calls.join(b"b")]
    assert len(calls.made) == 2
    calls.made[0].callback("yes")
    assert outcomes == [["yes"], ["yes"], []]
    assert calls.join() == []
    assert len(calls.made) == 3


def test_all_get_its_error() -> None:
    """None of them waits on."""
    calls = Calls()
    outcomes = [calls.join(), calls.join()]
    calls.made[0].errback(OSError("gone"))
    assert [type(failure.value) for (failure,) in outcomes] == [OSError, OSError]


def test_it_is_cancelled_when_all_have_left() -> None:
    """One that stays keeps it; a later one asks anew."""
    calls = Calls()
    one, other = (calls.calls.join(b"a", calls._begin) for _ in range(2))
    left: list[Failure] = []
    one.addErrback(left.append).cancel()
    assert calls.cancelled == 0
    other.addErrback(left.append).cancel()
    assert calls.cancelled == 1
    assert [failure.type for failure in left] == [CancelledError, CancelledError]
    calls.join()
    assert len(calls.made) == 2


def test_what_a_result_leads_to_may_cancel_others() -> None:
    """They are not called back."""
    calls = Calls()
    first = calls.calls.join(b"a", calls._begin)
    second = calls.calls.join(b"a", calls._begin)
    left: list[Failure] = []
    second.addErrback(left.append)
    first.addCallback(lambda _: second.cancel())
    calls.made[0].callback("yes")
    assert len(left) == 1


def test_a_call_may_end_at_once_or_not_begin() -> None:
    """Nothing of it stays behind."""
    calls = SharedCalls()
    outcome: list[str] = []
    calls.join(b"a", lambda: succeed("at once")).addCallback(outcome.append)
    assert outcome == ["at once"]

    def refuse() -> Deferred[str]:
        raise ValueError("too many")

    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            calls.join(b"a", refuse)


def test_to_leave_takes_no_time() -> None:
    """However many wait for the same, and whoever leaves first: they may have come over one connection, and leave at
    once. All of 20,000 took four seconds."""
    calls = Calls()
    waiting = [calls.calls.join(b"a", calls._begin).addErrback(lambda _: None) for _ in range(20_000)]
    began = time.process_time()
    for each in reversed(waiting):
        each.cancel()
    assert time.process_time() - began < 1.5
    assert calls.cancelled == 1
