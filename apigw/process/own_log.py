"""The daemon's own log, on standard error, or in the file of ``twistd --logfile``.

A thread writes it, so that a pipe that nobody reads holds up no request. The file is never renamed: that is for
logrotate, whose SIGUSR1 is ``reopen``. (Twisted's ``LogFile.rotate``, which twistd calls for that signal, does nothing
when the file has been moved away.)
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from threading import Event, RLock
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from apigw.ops.appender import STANDARD, Appender
from apigw.ops.appender import STDERR as STDERR
from apigw.process.own_lines import LEVELS, is_journal, level_of, of_format, with_priority
from apigw.process.signals import held_back

MAX_PENDING = 1024 * 1024
"""Bytes that may wait for whoever reads too slowly; what comes then is lost."""

STOP_TIMEOUT = 1.0
"""Seconds that the end of the process waits for whoever does not read at all."""

log = Logger()


@implementer(ILogObserver)
class OwnLog:
    """Writes events of ``level`` and above to ``file``, or to standard output (``-``) or standard error (``STDERR``).
    May be called from any thread. ``format`` is ``text`` or ``json``.

    How many lines were lost is said in one line as soon as writing works again.
    """

    def __init__(self, file: str, format: str = "text", level: str = "debug") -> None:
        self.file = file if file in STANDARD else os.path.abspath(file)
        self._line = of_format(format)
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        self._journal = file in STANDARD and is_journal(STANDARD[file], os.environ)
        self._appender = Appender(self.file, self._failed, self._complain, self._end, self._written)
        self._ended = Event()
        self._lock = RLock()  # a collection meanwhile may log what nobody handled
        self._handed = 0
        self._uncounted = 0
        self._unsaid = 0
        self._reason = ""
        self._who = ""
        self._count: Callable[[int], object] | None = None

    def open(self) -> None:
        """Open the file; what is logged from now on is written when there is the thread. Raises ``OSError``."""
        self._appender.open()
        atexit.register(self.close)

    def start(self) -> None:
        """Start the thread, so not before the process has forked. It takes no signals, which an upgrade holds back."""
        with held_back():
            self._appender.start()

    def forked(self, who: str) -> int:
        """In a child that was forked: go on in the same file, with a thread of its own, and say in each line ``who``
        writes it. Returns a copy of its descriptor. What the parent has lost is the parent's to count."""
        self._who = who
        self._lock = RLock()
        self._ended = Event()
        self._handed = self._uncounted = self._unsaid = 0
        self._count = None
        self._appender = self._appender.forked()
        self._appender.start()
        return self._appender.duplicate()

    def __call__(self, event: LogEvent) -> None:
        text = self._line(event, self._who) if level_of(event) in self._levels else None
        if text is None:
            return
        if self._journal:
            text = with_priority(text, event)
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._pending() + len(data) <= MAX_PENDING:
                self._handed += len(data)
                self._appender.append(data)
                return
        self._failed(data.count(b"\n"), "what reads it is too slow")

    def count_lost(self, count: Callable[[int], object]) -> None:
        """Have ``count``, which may be called from any thread, told of lines that are lost, and that were already."""
        with self._lock:
            self._count = count
            before, self._uncounted = self._uncounted, 0
        count(before)

    def reopen(self) -> None:
        """Go on in the file of that name, which may be a new one. If it cannot be opened, the old one goes on."""
        self._appender.reopen()

    def flush(self) -> None:
        """Wait until all is written, as far as that takes no longer than ``STOP_TIMEOUT``: another program follows."""
        ends = time.monotonic() + STOP_TIMEOUT
        while self._pending() and time.monotonic() < ends:
            time.sleep(0.001)

    def close(self) -> None:
        """Write what is left, as far as that takes no longer than ``STOP_TIMEOUT``."""
        atexit.unregister(self.close)
        self._appender.close()
        self._ended.wait(STOP_TIMEOUT)

    def _pending(self) -> int:
        return self._handed - self._appender.done

    # Called by the thread.

    def _failed(self, lines: int, reason: str) -> None:
        with self._lock:
            self._unsaid += lines
            self._reason = reason
            if self._count is None:
                self._uncounted += lines
                return
        self._count(lines)

    def _written(self) -> None:
        with self._lock:
            # Not for every line that a slow reader takes.
            if not self._unsaid or self._pending() > MAX_PENDING // 2:
                return
            lost, self._unsaid = self._unsaid, 0
        log.warn("{lost} lines of this log were lost: {reason}", lost=lost, reason=self._reason)

    def _complain(self, sentence: str) -> None:
        log.warn("{sentence}", sentence=sentence)

    def _end(self) -> None:
        self._ended.set()


class Logging(MultiService):
    """The program and its log: twistd takes an observer from the application, before it makes one of its own."""

    def __init__(self, program: IService, own_log: OwnLog) -> None:
        super().__init__()
        program.setServiceParent(self)
        self._own_log = own_log

    def setServiceParent(self, parent: Any) -> None:
        try:
            self._own_log.open()
        except OSError as error:
            raise SystemExit(f"apigw: cannot open the log: {error}") from None
        parent.setComponent(ILogObserver, self._own_log)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        self._own_log.start()
        super().privilegedStartService()
