"""A thread that appends to one file, so that a slow disk, or a pipe that nobody reads, does not block others."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

STDOUT, STDERR = "-", "stderr:"
STANDARD = {STDOUT: 1, STDERR: 2}
"""Names of what is open already, with their descriptors."""

PIPE_BUF = 4096
"""Bytes that a pipe takes atomically (pipe(7)): lines of several writers are not mixed, if they are no longer."""

SOCKET_BUF = 16384
"""Likewise for a stream socket, as systemd gives for standard output: what Linux sends in one piece."""

# struct flock of fcntl(2), for the whole file.
_LOCK = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_UNLOCK = struct.pack("hhqqi", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)


class Appender:
    """Writes batches of whole lines to ``file``, in order; ``STANDARD`` ones are those at the time of ``open``.

    Several may write to one file, pipe or socket, also of other processes, without tearing each other's lines. On pipes
    and sockets each holds a record lock while it writes. The system frees that of a process that ends.

    The callables are called from the thread: ``lost(lines, reason)`` for what could not be written, ``complain`` with a
    sentence about a file that could not be opened again, ``closed()`` at the end, ``written()`` after each batch that
    was written.
    """

    def __init__(
        self,
        file: str,
        lost: Callable[[int, str], object],
        complain: Callable[[str], object],
        closed: Callable[[], object],
        written: Callable[[], object] = lambda: None,
    ) -> None:
        self.done = 0
        """Bytes of the batches that were processed, written or not."""
        self._file = file
        self._lost = lost
        self._complain = complain
        self._closed = closed
        self._written = written
        self._thread: Thread | None = None
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._descriptor = -1
        self._at_a_time: int | None = None
        self._lock_by: int | None = None
        self._torn = False

    def open(self) -> None:
        """Open the file; raises ``OSError``."""
        self._descriptor = self._open()

    def start(self) -> None:
        """Start the thread, which writes what was passed to ``append``. Call it after the process has forked."""
        self._thread = Thread(target=self._run, name=f"append to {self._file}", daemon=True)
        self._thread.start()

    def forked(self) -> Appender:
        """One that writes to the same open file, for a child that was forked. What waited here is the parent's."""
        child = Appender(self._file, self._lost, self._complain, self._closed, self._written)
        child._descriptor = self.duplicate()
        return child

    def duplicate(self) -> int:
        """A copy of the descriptor of the open file."""
        return os.dup(self._descriptor)

    def append(self, batch: bytes) -> None:
        self._orders.put(partial(self._write, batch))

    def reopen(self) -> None:
        """Reopen the file by its name, after all that was passed to ``append`` so far is written."""
        if self._file not in STANDARD:
            self._orders.put(self._reopen)

    def close(self) -> None:
        """Write what was passed to ``append`` so far, and end. Blocks only if the thread was not started."""
        self._orders.put(None)
        if self._thread is None:
            self._run()

    def _open(self) -> int:
        if self._file in STANDARD:
            descriptor = os.dup(STANDARD[self._file])
        else:
            # A named pipe without a reader is an error at once, instead of a wait for one.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._file, flags, 0o640)
            os.set_blocking(descriptor, True)
        return descriptor

    def _prepare(self) -> None:
        """Find out how to write to the descriptor. Called by the thread, so after the process has forked."""
        mode = os.fstat(self._descriptor).st_mode
        self._at_a_time = PIPE_BUF if stat.S_ISFIFO(mode) else SOCKET_BUF if stat.S_ISSOCK(mode) else None
        self._lock_by = None
        if self._at_a_time is None:
            return
        # A lock of an open file description excludes threads, too. But what was inherited is one with its other heirs'.
        try:
            own = os.open(f"/proc/self/fd/{self._descriptor}", os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # a socket, or another user's pipe, as after ``--uid``: a lock of the process must do
            self._lock_by = fcntl.F_SETLKW
        else:
            os.set_blocking(own, True)
            # Of the same number, of which others may ask for a copy meanwhile.
            os.dup2(own, self._descriptor, inheritable=False)
            os.close(own)
            self._lock_by = fcntl.F_OFD_SETLKW

    def _turn(self, lock: bytes) -> None:
        """Wait for the lock of a pipe or socket, or free it."""
        if self._lock_by is not None:
            try:
                fcntl.fcntl(self._descriptor, self._lock_by, lock)
            except OSError:  # there are no locks here, as in a sandbox
                self._lock_by = None

    def _run(self) -> None:
        self._prepare()
        for order in iter(self._orders.get, None):
            order()
        try:
            os.close(self._descriptor)
        except OSError as error:
            self._complain(f"{self._file}: {error.strerror}")
        self._closed()

    def _reopen(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            self._complain(f"{self._file} cannot be opened again: {error.strerror}; writing to the old file")
        else:
            os.close(self._descriptor)
            self._descriptor = descriptor
            self._prepare()
            self._torn = False

    def _write(self, batch: bytes) -> None:
        # A line of which only a part could be written is ended first.
        data = b"\n" + batch if self._torn else batch
        sent = 0
        self._turn(_LOCK)
        try:
            while sent < len(data):
                try:
                    sent += os.write(self._descriptor, data[sent : self._end(data, sent)])
                except BlockingIOError:  # somebody who has the same standard output made it so
                    select.select((), (self._descriptor,), ())
        except OSError as error:
            self._lost(data.count(b"\n", max(sent, len(data) - len(batch))), error.strerror or str(error))
        finally:
            self._turn(_UNLOCK)
        if sent:
            self._torn = data[sent - 1 : sent] != b"\n"
        self.done += len(batch)
        if sent == len(data):
            self._written()

    def _end(self, data: bytes, start: int) -> int:
        if self._at_a_time is None:
            return len(data)
        return (data.rfind(b"\n", start, start + self._at_a_time) + 1) or (data.find(b"\n", start) + 1)
