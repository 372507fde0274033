"""The log of one plugin: each line names it, and there is a bound, so that no plugin floods the log of the gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

WITHIN = 10.0
LINES = 100
"""Lines of its own within so many seconds; more are dropped and counted."""
TRACEBACKS = 10
"""Failures that are logged within so many seconds."""
MOST = 4000
"""Characters of a line."""


class Bound:
    """So many within ``WITHIN`` seconds."""

    def __init__(self, most: int, seconds: Callable[[], float]) -> None:
        self._most = most
        self._seconds = seconds
        self._began = float("-inf")
        self._used = 0
        self.lost = 0
        """Those since the last that was let through."""

    def admits(self) -> bool:
        now = self._seconds()
        if now - self._began >= WITHIN:
            self._began, self._used = now, 0
        if self._used >= self._most:
            self.lost += 1
            return False
        self._used += 1
        return True


class PluginLog:
    """What plugins get as ``context.log`` and ``view.log``: ``debug``, ``info``, ``warn``, ``error``, ``failure``."""

    def __init__(
        self, plugin: str, seconds: Callable[[], float], exchange: str = "", of: PluginLog | None = None
    ) -> None:
        self._plugin = plugin
        self._exchange = exchange
        self._seconds = seconds
        self._of = of or self
        if of is None:
            self.lost = 0
            """Lines that were dropped."""
            self._lines = Bound(LINES, seconds)
            self._tracebacks = Bound(TRACEBACKS, seconds)
            self._log = Logger(namespace=f"apigw.plugin.{plugin}")

    def for_exchange(self, identifier: str) -> PluginLog:
        """The same, with the id of a request in each line."""
        return PluginLog(self._plugin, self._seconds, identifier, self._of)

    def debug(self, text: str, **fields: Any) -> None:
        self._emit(LogLevel.debug, text, fields)

    def info(self, text: str, **fields: Any) -> None:
        self._emit(LogLevel.info, text, fields)

    def warn(self, text: str, **fields: Any) -> None:
        self._emit(LogLevel.warn, text, fields)

    def error(self, text: str, **fields: Any) -> None:
        self._emit(LogLevel.error, text, fields)

    def failure(self, text: str, **fields: Any) -> None:
        """For use in an ``except``: with the traceback."""
        error = sys.exc_info()[1]
        self._emit(LogLevel.critical, text, fields, None if error is None else Failure(error))

    # The gateway's own lines about the plugin.

    def said(self, sentence: str) -> None:
        self._of._log.warn("the plugin {plugin} {sentence}", plugin=self._plugin, sentence=sentence)

    def failed(self, method: str, error: BaseException, request: str = "") -> None:
        bound = self._of._tracebacks
        if not bound.admits():
            return
        more = f"; {bound.lost} failures before were not logged" if bound.lost else ""
        bound.lost = 0
        failure = Failure(error, type(error), error.__traceback__)
        where = f"{request}: " if request else ""
        text = "{where}the plugin {plugin} failed in {method}{more}"
        self._of._log.failure(text, failure, where=where, plugin=self._plugin, method=method, more=more)

    def _emit(self, level: Any, text: str, fields: dict[str, Any], failure: Failure | None = None) -> None:
        root = self._of
        if not root._lines.admits():
            root.lost += 1
            return
        lost, root._lines.lost = root._lines.lost, 0
        if lost:
            root._log.warn("the plugin {plugin} has written {lost} lines too many", plugin=self._plugin, lost=lost)
        try:
            line = text.format(**fields) if fields else text
        except Exception as error:
            line = f"{text!r} cannot be formatted: {error!r}"
        if len(line) > MOST:
            line = line[:MOST] + "…"
        where = f"{self._exchange}: " if self._exchange else ""
        told = {} if failure is None else {"log_failure": failure}
        root._log.emit(level, "{where}plugin {plugin}: {line}", where=where, plugin=self._plugin, line=line, **told)
