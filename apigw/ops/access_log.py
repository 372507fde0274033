# Compiled: see docs/decisions/compiled.md
"""The access log: lines are collected on the reactor and written by a thread. What cannot be written is counted and
left out; traffic never waits for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from apigw.ops.access_line import FORMATS, Entry
from apigw.ops.appender import Appender

BATCH = 128 * 1024
DELAY = 0.2
"""Lines are written when they have so many bytes together, or after so many seconds."""

AT_ONCE = 16
"""So many lines are made one after the other: singly, each costs twice as much, for what is not in the cache."""

MAX_PENDING = 8 * 1024 * 1024
"""Bytes that may wait for whoever reads too slowly."""

STOP_TIMEOUT = 5.0
"""Seconds that ``stop`` waits for whoever does not read at all."""

QUIET = 60.0
"""Seconds without a loss after which the log counts as whole again."""


class AccessLog:
    """Appends a line an exchange to ``file``; ``-`` is standard output.

    ``format`` is ``json`` or ``combined``. ``call_from_thread`` is the reactor's ``callFromThread``. ``report`` says a
    sentence in the daemon's own log: when lines begin to be lost, and how many it were when that is over.
    ``count_lost`` is told of each loss.
    """

    def __init__(
        self,
        file: str,
        format: str,
        clock: IReactorTime,
        call_from_thread: Callable[..., object],
        report: Callable[[str], object],
        max_pending: int = MAX_PENDING,
        count_lost: Callable[[int], object] = lambda lines: None,
    ) -> None:
        self.dropped = 0
        """Lines lost since the start."""
        self._format = FORMATS[format]
        self.quotes_headers = self._format.quotes_headers
        """Whether an entry's ``referer`` and ``user_agent`` are shown; else they need not be looked for."""
        self._clock = clock
        self._report = report
        self._count_lost = count_lost
        self._max_pending = max_pending
        self._appender = Appender(
            file,
            partial(call_from_thread, self._lost),
            partial(call_from_thread, self._complain),
            partial(call_from_thread, self._closed),
        )
        self._second = -1
        self._stamp = ""
        self._entries: list[Entry] = []
        self._made: list[bytes] = []  # the lines of entries, so many and of that size
        self._lines = 0
        self._size = 0
        self._handed = 0
        self._timer: IDelayedCall | None = None
        self._losing = 0
        self._last_loss = 0.0
        self._stopping: Deferred[None] | None = None
        self._giving_up: IDelayedCall | None = None

    def start(self) -> None:
        """Open the file and start the thread, so not before the process has forked. Raises ``OSError``."""
        self._appender.open()
        self._appender.start()

    def log(self, entry: Entry) -> None:
        """Note an exchange. Never waits."""
        self._entries.append(entry)
        if len(self._entries) == AT_ONCE:
            self._make_lines()
            if self._size >= BATCH:
                self.flush()
        if self._timer is None:
            self._timer = self._clock.callLater(DELAY, self._due)

    def _make_lines(self) -> None:
        lines = []
        entries, self._entries = self._entries, []
        for entry in entries:
            second = int(entry.time)
            if second != self._second:
                self._second = second
                self._stamp = self._format.stamp(second)
            lines.append(self._format.line(self._stamp, int((entry.time - second) * 1000), entry))
        self._lines += len(lines)
        made = b"".join(lines)
        self._made.append(made)
        self._size += len(made)

    def flush(self) -> None:
        """Hand what has been collected to the thread, or drop it when too much waits there already."""
        if self._entries:
            self._make_lines()
        if not self._made:
            return
        count, size = self._lines, self._size
        batch = b"".join(self._made)
        self._made.clear()
        self._lines = self._size = 0
        if self._handed - self._appender.done + size > self._max_pending:
            self._lost(count, "what reads it is too slow")
            return
        self._handed += size
        self._appender.append(batch)
        if self._losing and self._clock.seconds() - self._last_loss >= QUIET:
            self._report(f"access log: whole again, {self._losing} lines were lost")
            self._losing = 0

    def reopen(self) -> None:
        """Go on in a new file of the same name, as after logrotate. Lines logged before stand in the old one."""
        self.flush()
        self._appender.reopen()

    def stop(self) -> Deferred[None]:
        """Fires when every line has been written, or could not be within ``STOP_TIMEOUT``."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stopping = Deferred()
        self._giving_up = self._clock.callLater(STOP_TIMEOUT, self._give_up)
        self._appender.close()
        return self._stopping

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def _lost(self, lines: int, reason: str) -> None:
        self.dropped += lines
        self._count_lost(lines)
        if not self._losing:
            self._complain(f"{reason}; lines are being lost")
        self._losing += lines
        self._last_loss = self._clock.seconds()

    def _complain(self, sentence: str) -> None:
        self._report(f"access log: {sentence}")

    def _closed(self) -> None:
        if self._giving_up is not None and self._giving_up.active():
            self._giving_up.cancel()
            self._end()

    def _give_up(self) -> None:
        self._complain(f"{self._handed - self._appender.done} bytes could not be written before the end")
        self._end()

    def _end(self) -> None:
        if self._losing:
            self._complain(f"{self._losing} lines were lost")
        if self._stopping is not None:
            self._stopping.callback(None)
