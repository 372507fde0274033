"""The audit log: who changed something, or was given something. Written by a thread; what cannot be written is counted
and lost, and nobody waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from apigw.ops.appender import PIPE_BUF, Appender

MAX_PENDING = 1024 * 1024
"""Bytes that may wait for a slow disk. Further lines are lost."""

STOP_TIMEOUT = 5.0
"""Seconds that ``stop`` waits for a reader that does not read at all."""

MOST_TEXT = 256
MOST_ENTRIES = 100
"""Characters of a text, but for sentences in lists, and entries of a list: lines to a pipe are at most 4,096 bytes."""


class Audit(Protocol):
    """Note an event, such as ``denial``, with its outcome and who asked for it. Facts hold no secret."""

    def __call__(self, event: str, outcome: str, by: str, **facts: object) -> None: ...


def unaudited(event: str, outcome: str, by: str, **facts: object) -> None:
    """Where there is no audit log."""


class AuditLog:
    """Appends a line of JSON for each event to ``file``; ``-`` is standard output. ``now`` is Unix time.

    ``report`` logs a sentence in the daemon's own log, ``count_lost`` counts lines that are lost.
    """

    def __init__(
        self,
        file: str,
        reactor: Any,
        now: Callable[[], float],
        report: Callable[[str], object],
        count_lost: Callable[[int], object],
    ) -> None:
        self._now = now
        self._reactor = reactor
        self._report = report
        self._count_lost = count_lost
        self._handed = 0
        self._losing = False
        self._stopping: Deferred[None] | None = None
        self._giving_up: IDelayedCall | None = None
        in_reactor = partial(partial, reactor.callFromThread)
        callables = (self._lost, self._complain, self._closed, self._written)
        self._appender = Appender(file, *map(in_reactor, callables))

    def start(self) -> None:
        """Open the file and start the thread. Call it after the process has forked. Raises ``OSError``."""
        self._appender.open()
        self._appender.start()

    def note(self, event: str, outcome: str, by: str, **facts: object) -> None:
        """An ``Audit``. Never waits."""
        line = line_of(self._now(), event, outcome, by, facts)
        if self._handed - self._appender.done + len(line) > MAX_PENDING:
            self._lost(1, "what reads it is too slow")
            return
        self._handed += len(line)
        self._appender.append(line)

    def reopen(self) -> None:
        """Reopen the file, for logrotate."""
        self._appender.reopen()

    def stop(self) -> Deferred[None]:
        """Fires when every line is written, at the latest after ``STOP_TIMEOUT``."""
        self._stopping = Deferred()
        self._giving_up = self._reactor.callLater(STOP_TIMEOUT, self._give_up)
        self._appender.close()
        return self._stopping

    def _lost(self, lines: int, reason: str) -> None:
        self._count_lost(lines)
        if not self._losing:
            self._losing = True
            self._complain(f"{reason}; lines are being lost")

    def _written(self) -> None:
        if self._losing:
            self._losing = False
            self._complain("whole again")

    def _complain(self, sentence: str) -> None:
        self._report(f"audit log: {sentence}")

    def _closed(self) -> None:
        if self._giving_up is not None and self._giving_up.active():
            self._giving_up.cancel()
            self._end()

    def _give_up(self) -> None:
        self._complain("not all could be written before the end")
        self._end()

    def _end(self) -> None:
        if self._stopping is not None:
            self._stopping.callback(None)


def line_of(now: float, event: str, outcome: str, by: str, facts: dict[str, object]) -> bytes:
    """A line of ASCII, of at most ``PIPE_BUF`` bytes. Of one that would be longer the lists are cut, then the rest."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document: dict[str, object] = {"time": time, "event": event, "outcome": outcome, "by": by}
    document.update({name: _bounded(value, MOST_ENTRIES) for name, value in facts.items()})
    line = _dumped(document)
    most = MOST_ENTRIES
    while len(line) > PIPE_BUF and most:
        most //= 2
        document.update({name: _bounded(value, most) for name, value in facts.items()})
        line = _dumped(document)
    if len(line) > PIPE_BUF:
        cut: dict[str, object] = {"time": time, "event": event, "outcome": outcome, "by": by[:MOST_TEXT], "cut": True}
        line = _dumped(cut)
    return line


def _bounded(value: object, most: int) -> object:
    if isinstance(value, list | tuple):
        more = len(value) - most
        return [*value[:most], *([f"and {more} more"] if more > 0 else [])]
    return value[:MOST_TEXT] if isinstance(value, str) else value


def _dumped(document: dict[str, object]) -> bytes:
    return json.dumps(document).encode("ascii") + b"\n"
