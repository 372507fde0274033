# Compiled: see docs/decisions/compiled.md
"""The rate at which a client sends a body."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 30
"""Seconds over which a rate is averaged, so that clients on bad networks may stall for some seconds."""


class Pace:
    """The rate of one body over windows of ``WINDOW`` seconds. Time in which the body is paused does not count."""

    def __init__(self, least_rate: float, now: float) -> None:
        """``least_rate`` is in bytes a second."""
        self._least = least_rate * WINDOW
        self._ends_at = now + WINDOW
        self._received = 0
        self._paused_at: float | None = None

    def is_slow(self, size: int, now: float) -> bool:
        """Count ``size`` bytes. Returns whether a window has ended with too few bytes."""
        self._received += size
        if now < self._ends_at:
            return False
        slow = self._received < self._least
        self._ends_at = now + WINDOW
        self._received = 0
        return slow

    def pause(self, now: float) -> None:
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        if self._paused_at is not None:
            self._ends_at += now - self._paused_at
            self._paused_at = None
