"""Long computations in the thread that serves requests: in pieces, between which the reactor takes its turn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

PIECE = 0.001
"""Seconds. A request that is relayed takes three turns of the reactor, so it waits for some 3 ms in all."""


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
    """Run ``steps`` to its end, from the reactor's next turn on. A turn runs what begins within ``PIECE``.

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
            waiting = reactor.callLater(0, run)

    return done
