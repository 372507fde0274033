"""Tests that wait for the reactor in the middle of plain code, as properties must: hypothesis calls no coroutines."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from greenlet import greenlet
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure


def waiting(test: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """A test that may call ``wait_for``: pytest-twisted runs tests in the reactor's greenlet, this gives it its own."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> Deferred[Any]:
        ended: Deferred[Any] = Deferred()

        def body() -> None:
            try:
                outcome = test(*args, **kwargs)
            except BaseException:
                outcome = Failure()
            # From the reactor's greenlet, so that this one can end.
            reactor.callLater(0, ended.callback, outcome)

        greenlet(body).switch()
        return ended

    return run


def wait_for(deferred: Deferred[Any]) -> Any:
    return blockon(deferred)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, in plain code."""
    for _ in range(2_000):
        if condition():
            return
        wait_for(deferLater(reactor, 0.01))
    raise AssertionError("waited in vain")


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition, in a coroutine."""
    for _ in range(10_000):
        if condition():
            return
        await deferLater(reactor, 0.001)
    raise AssertionError("it never happens")
