"""A reactor whose threads run when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure


class Later(Clock):
    """A clock, and a pool of threads: what is to run in one is ``waiting`` until ``end``."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], None]] = []

    def getThreadPool(self) -> Later:
        return self

    def callInThreadWithCallback(
        self, ended: Callable[[bool, Any], None], call: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        def run() -> None:
            try:
                result = call(*arguments, **named)
            except Exception:
                ended(False, Failure())
            else:
                ended(True, result)

        self.waiting.append(run)

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        call(*arguments)

    def end(self) -> None:
        """Run what has waited longest."""
        self.waiting.pop(0)()
