# Compiled: see docs/decisions/compiled.md
"""The access log: entries are collected in the reactor's thread, and written by another thread. Lines that cannot be
written are counted and dropped; traffic never waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from apigw.ops.access_line import Entry, of_format
from apigw.ops.appender import Appender

BATCH = 128 * 1024
DELAY = 0.2
"""Lines are written when they have this many bytes together, or after this many seconds."""

AT_ONCE = 16
"""So many lines are formatted together. Measured: one at a time, each costs twice as much, for cache misses."""

MAX_PENDING = 8 * 1024 * 1024
"""Bytes that may be buffered for a slow disk or reader. Further lines are lost."""

STOP_TIMEOUT = 5.0
"""Seconds that ``stop`` waits for a reader that does not read at all."""

QUIET = 60.0
"""Seconds without a loss, after which the end of the losses is reported."""


class AccessLog:
    """Appends one line for each exchange to ``file``; ``-`` is standard output.

    ``format`` is ``json``, with ``fields`` or the usual ones, or ``combined``. ``call_from_thread`` is the reactor's
    ``callFromThread``. ``report`` logs a sentence in the daemon's own log: when losses begin, and how many lines were
    lost when they end. ``count_lost`` is called with the number of lines of each loss.
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
        fields: Sequence[str] = (),
    ) -> None:
        self.dropped = 0
        """Lines lost since the start."""
        self._format = of_format(format, fields)
        self.quotes_headers = self._format.quotes_headers
        """Whether lines may have ``host``, ``referer`` and ``user_agent``; otherwise entries do not need them."""
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
        """Open the file and start the thread. Call it after the process has forked. Raises ``OSError``."""
        self._appender.open()
        self._appender.start()

    def log(self, entry: Entry) -> None:
        """Log an exchange. Never waits."""
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
        """Pass the collected entries to the thread, or drop them if ``MAX_PENDING`` bytes wait already."""
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
        """Reopen the file, for logrotate. Lines that were logged before go to the old file."""
        self.flush()
        self._appender.reopen()

    def stop(self) -> Deferred[None]:
        """Fires when every line is written, at the latest after ``STOP_TIMEOUT``."""
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
