"""Long computations are cut, so that the reactor gets its turns."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from apigw.process.pieces import PIECE, REST, at_once, in_pieces


class Scene:
    """Each step takes 0.4 of a piece."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.done = 0
        self.now = 0.0
        self.closed = False

    def steps(self, count: int) -> Generator[None, None, int]:
        try:
            for _ in range(count):
                self.done += 1
                self.now += 0.4 * PIECE
                yield
            return self.done
        finally:
            self.closed = True


def test_a_piece_ends_with_the_step_that_exceeds_it() -> None:
    """Three steps begin within a piece; the reactor rests after it, and nothing is done before its next turn."""
    scene = Scene()
    results: list[Any] = []
    in_pieces(scene.clock, scene.steps(5), lambda: scene.now).addCallback(results.append)
    assert scene.done == 0
    scene.clock.advance(0)
    assert (scene.done, results) == (3, [])
    scene.clock.advance(REST / 2)
    assert scene.done == 3
    scene.clock.advance(REST / 2)
    assert (scene.done, results) == (5, [5])


def test_what_the_steps_raise_is_the_failure() -> None:
    def failing() -> Generator[None, None, None]:
        yield
        raise KeyError("it")

    clock = Clock()
    failures: list[Any] = []
    in_pieces(clock, failing()).addErrback(failures.append)
    clock.advance(0)
    assert failures[0].check(KeyError)
    assert clock.getDelayedCalls() == []


def test_a_cancel_closes_the_steps() -> None:
    scene = Scene()
    failures: list[Any] = []
    running = in_pieces(scene.clock, scene.steps(9), lambda: scene.now).addErrback(failures.append)
    scene.clock.advance(0)
    running.cancel()
    assert scene.closed
    assert failures[0].check(CancelledError)
    assert scene.clock.getDelayedCalls() == []


def test_at_once_returns_what_the_steps_return() -> None:
    assert at_once(Scene().steps(4)) == 4
    with pytest.raises(ZeroDivisionError):
        at_once(1 // 0 for _ in "a")  # type: ignore[misc]
