"""Reads a new configuration in a process of its own, so that no request waits for it (docs/decisions/reload.md)."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.process import ProcessReader
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw import __version__
from apigw.config.errors import ConfigError, Problem
from apigw.process.handover import Handover, code

PATIENCE = 60.0
"""Seconds that it may take: 10,000 routes take 5 s on an idle core."""

_START = (
    "import json, sys; told = json.load(sys.stdin); sys.path[:] = told['path']; "
    "from apigw.process.reader import main; main(told)"
)

log = Logger()


class Reading:
    """Reads the configuration in ``directory``, checks it, and constructs the whole program with it as a test.

    The child has the environment of this process, and finds its modules where this process does.
    """

    def __init__(self, reactor: Any, directory: str, patience: float = PATIENCE, python: str = sys.executable) -> None:
        self._reactor = reactor
        self._directory = directory
        self._patience = patience
        self._python = python
        self._code = code()

    def read(self) -> Deferred[Handover]:
        """Fails with ``ConfigError`` if the configuration cannot be used, or was not read. A cancel kills the child."""
        told = {"directory": self._directory, "path": sys.path, "code": self._code}
        try:
            child = _Child([self._python, "-P", "-c", _START], json.dumps(told).encode())
        except OSError as error:
            return fail(_unread(f"could not be read: {self._python}: {error.strerror}"))
        late = partial(child.give_up, f"was not read within {self._patience:g} s")
        child.watch(self._reactor, self._reactor.callLater(self._patience, late))
        return child.outcome.addCallback(self._handover)

    def _handover(self, written: bytes) -> Handover:
        head, _, data = written.partition(b"\n")
        facts = json.loads(head)
        if facts["code"] != self._code:
            raise ConfigError([Problem(_other_code(facts["version"]))])
        if facts["routes"] is None:
            raise ConfigError(pickle.loads(data))
        return Handover(data, facts["routes"])


class _Child:
    """The process. ``outcome`` fires when it has ended with what it has written, or fails with ``ConfigError``."""

    def __init__(self, command: list[str], told: bytes) -> None:
        """``told`` fits into a pipe. Raises ``OSError`` if the process cannot be started."""
        self.outcome: Deferred[bytes] = Deferred(lambda _: self._process.kill())
        self._written: dict[str, list[bytes]] = {"out": [], "err": []}
        self._why = ""
        # Descriptors of Python are not inherited. With ``close_fds`` each of ten thousand connections would be closed,
        # and without it the process is not even copied (vfork).
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False
        )
        self._pipes = {"out": self._process.stdout, "err": self._process.stderr}
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError), pipe:  # a process that has ended says why
            pipe.write(told)

    def watch(self, reactor: Any, late: IDelayedCall) -> None:
        self._reactor, self._late = reactor, late
        for name, pipe in self._pipes.items():
            assert pipe is not None
            ProcessReader(reactor, self, name, pipe.fileno())

    def give_up(self, why: str) -> None:
        """End it; ``why`` is the rest of a sentence about the configuration."""
        self._why = why
        self._process.kill()

    def childDataReceived(self, name: str, data: bytes) -> None:
        self._written[name].append(data)

    def childConnectionLost(self, name: str, reason: Failure) -> None:
        pipe = self._pipes.pop(name)
        assert pipe is not None
        pipe.close()
        if not self._pipes:
            self._ended()

    def _ended(self) -> None:
        code = self._process.poll()
        if code is None:  # its pipes are closed a moment before its end, or longer while the machine is busy
            self._reactor.callLater(0.01, self._ended)
            return
        if self._late.active():
            self._late.cancel()
        if self.outcome.called:
            return  # it was cancelled
        if code == 0:
            self.outcome.callback(b"".join(self._written["out"]))
            return
        said = b"".join(self._written["err"]).decode(errors="replace").strip()
        if said:
            log.error("the process that read the configuration: {said}", said=said)
        self.outcome.errback(_unread(self._why or f"could not be read: {_how(code, said)}"))


def _unread(why: str) -> ConfigError:
    return ConfigError([Problem(f"the new configuration {why}")])


def _how(code: int, said: str) -> str:
    """What became of the process."""
    if code < 0:
        return f"the process that read it was ended by {signal.Signals(-code).name}"
    return f"the process that read it ended with {code}: {said.splitlines()[-1] if said else 'it did not say why'}"


def _other_code(version: str) -> str:
    found = f"is {version}, and {__version__} runs" if version != __version__ else "is not the one that runs"
    return f"the program on disk {found}: restart or upgrade the gateway"
