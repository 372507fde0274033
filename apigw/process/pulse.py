"""A worker's pulse: the sign of life in its slot of the shared page, and whether it is the lowest that has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from apigw.shared.page import Page
from apigw.shared.slots import READY, STALE, TICK

INTERVAL = 0.25
"""Seconds between two ticks. A worker without one for ``slots.STALE`` is left out."""


class Pulse(Service):
    """Ticks from its start to its end. ``checker_changed`` is called with whether this worker is the checker now."""

    def __init__(self, clock: Any, page: Page, checker_changed: Callable[[bool], object]) -> None:
        self._clock = clock
        self._page = page
        self._checker_changed = checker_changed
        self.checks = False
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def startService(self) -> None:
        super().startService()
        self._beating.start(INTERVAL)
        self._clock.callWhenRunning(self._ready)

    def stopService(self) -> None:
        super().stopService()
        self._beating.stop()
        self._page.slots.put(self._page.worker, READY, 0)
        self._page.slots.put(self._page.worker, TICK, self._now() - 2 * STALE)
        self._look()

    def _ready(self) -> None:
        """The reactor runs, and everything has started. The gate says when this worker accepts no more."""
        if self.running:
            self._page.slots.put(self._page.worker, READY, 1)
            self._look()

    def _beat(self) -> None:
        self._page.slots.put(self._page.worker, TICK, self._now())
        self._look()

    def _look(self) -> None:
        checks = self._page.slots.checker(self._now()) == self._page.worker
        if checks != self.checks:
            self.checks = checks
            self._checker_changed(checks)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
