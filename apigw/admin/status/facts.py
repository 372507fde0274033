"""``/status``: the state of this process in numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from apigw import __version__
from apigw.admin.status.history import History
from apigw.admin.status.page import document
from apigw.process.current import Current
from apigw.process.reload import Progress
from apigw.proxy.pipeline import Pipeline
from apigw.wire.channel import ChannelFactory


class Facts:
    """What is shown. Times are seconds."""

    def __init__(
        self,
        seconds: Callable[[], float],
        current: Current,
        pipeline: Pipeline,
        channels: ChannelFactory,
        reload: Progress,
        history: History,
        directory: str,
    ) -> None:
        self._seconds = seconds
        self._began = seconds()
        self._current = current
        self._pipeline = pipeline
        self._channels = channels
        self._reload = reload
        self._history = history
        self._directory = directory

    def status(self) -> dict[str, object]:
        succeeded = self._reload.succeeded
        return {
            "version": __version__,
            "uptime": round(self._seconds() - self._began, 3),
            "connections": len(self._channels.channels),
            "in_flight": self._pipeline.in_flight,
            "last_reload": None if succeeded is None else "succeeded" if succeeded else "failed",
            "process": os.getpid(),
            "directory": self._directory,
            "reloads": self._reload.count,
            "reloading": self._reload.runs,
            "problems": self._reload.problems,
        }

    def page(self) -> Iterator[dict[str, Any] | None]:
        """The data of the status page, made in several steps; see ``page.Build``."""
        status = self.status()
        result = status["last_reload"]
        ago = round(self._seconds() - self._reload.ended_at, 3)
        facts = {**status, "last_reload": None if result is None else {"result": result, "ago": ago}}
        return document(facts, self._current.snapshot, self._history)
