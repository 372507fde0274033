"""A program that this process executes to try something out, and whose end it waits for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.process import ProcessReader
from twisted.python.failure import Failure

LOOK = 0.01
"""Seconds between two looks whether a process that has closed its pipes has ended: a moment, or while the machine is
busy longer."""

WATCH = 0.5
"""Seconds between two looks whether a process has ended, while its pipes are open: what it has started may have them
too, and keep them for ever. What it had written itself, at most what the pipes hold, is read so long after its end."""

MOST_ERRORS = 1 << 20
"""Bytes of the standard error that are kept: the last ones."""


@frozen
class Ended:
    """How it has ended."""

    code: int
    """Below 0 for a signal, as ``subprocess`` has it."""
    out: bytes
    """Its standard output, if that was asked for."""
    said: str
    """Its standard error."""
    late: bool
    """Whether it was ended for taking too long."""


class Child:
    """The process. ``ended`` fires with an ``Ended``; a cancel kills it. After ``within`` seconds it is killed, too.

    Raises ``OSError`` if it cannot be started. ``told`` is its standard input, and fits into a pipe. It inherits the
    environment, with ``environ`` added.
    """

    def __init__(
        self,
        reactor: Any,
        command: Sequence[str],
        within: float,
        told: bytes = b"",
        environ: Mapping[str, str] | None = None,
        output: bool = True,
    ) -> None:
        self._reactor = reactor
        self._late = False
        self._out: list[bytes] = []
        self._err = bytearray()
        # Descriptors of Python are not inherited. With ``close_fds`` each of ten thousand connections would be closed,
        # and without it the process is not even copied (vfork).
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            close_fds=False,
            env={**os.environ, **(environ or {})},
        )
        self.ended: Deferred[Ended] = Deferred(lambda _: self._process.kill())
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError), pipe:  # a process that has ended says why
            pipe.write(told)
        self._pipes = {"err": self._process.stderr, **({"out": self._process.stdout} if output else {})}
        self._readers = []
        for name, each in self._pipes.items():
            assert each is not None
            self._readers.append(ProcessReader(reactor, self, name, each.fileno()))
        self._has_ended = False
        self._watching = reactor.callLater(WATCH, self._watch)
        self._timer = reactor.callLater(within, self._give_up)

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _watch(self) -> None:
        if self._has_ended:
            for reader in self._readers:
                reader.loseConnection()
            return
        self._has_ended = self._process.poll() is not None
        self._watching = self._reactor.callLater(WATCH, self._watch)

    def childDataReceived(self, name: str, data: bytes) -> None:
        if name == "out":
            self._out.append(data)
        else:
            self._err += data
            del self._err[:-MOST_ERRORS]

    def childConnectionLost(self, name: str, reason: Failure) -> None:
        pipe = self._pipes.pop(name)
        assert pipe is not None
        pipe.close()
        if not self._pipes:
            if self._watching.active():
                self._watching.cancel()
            self._look()

    def _look(self) -> None:
        code = self._process.poll()
        if code is None:
            self._reactor.callLater(LOOK, self._look)
            return
        if self._timer.active():
            self._timer.cancel()
        if not self.ended.called:  # it was not cancelled
            said = self._err.decode(errors="replace").strip()
            self.ended.callback(Ended(code, b"".join(self._out), said, self._late))
