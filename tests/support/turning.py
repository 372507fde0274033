"""A reactor with real files and processes, and the test's time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor

from support.waiting import PATIENCE


class Turning(EPollReactor):
    """Its clock goes only as the test says. Nothing runs it but ``turn`` and ``turn_until``."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()

    def seconds(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def turn(self) -> None:
        self.iterate(0)

    def turn_until(self, condition: Callable[[], Any]) -> None:
        """Turn until it is true. Meanwhile the clock goes on, by a millisecond for each turn."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, "did not come true"
            self.advance(0.001)
            self.iterate(0.001)
