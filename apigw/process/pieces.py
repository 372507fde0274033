"""Long computations in the thread that serves requests: in pieces, between which the reactor takes its turn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

PIECE = 0.001
REST = 0.003
"""Seconds. For three quarters of the time the reactor does nothing but serve: with a piece in each of its turns, a
request that takes three of them would wait for three pieces.
"""


def at_once(steps: Generator[None, None, T]) -> T:
    """Run ``steps`` to its end, and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value


def in_pieces(
    reactor: Any, steps: Generator[None, None, T], seconds: Callable[[], float] = perf_counter
) -> Deferred[T]:
    """Run ``steps`` to its end, from the reactor's next turn on: what begins within ``PIECE``, then a ``REST``.

    Fires with what ``steps`` returns, or fails with what it raises. A cancel closes it.
    """
    done: Deferred[T] = Deferred(lambda _: cancel())
    waiting = reactor.callLater(0, lambda: run())

    def cancel() -> None:
        waiting.cancel()
        steps.close()

    def run() -> None:
        nonlocal waiting
        ends = seconds() + PIECE
        try:
            while seconds() < ends:
                next(steps)
        except StopIteration as stop:
            done.callback(stop.value)
        except BaseException:
            done.errback()
        else:
            waiting = reactor.callLater(REST, run)

    return done
