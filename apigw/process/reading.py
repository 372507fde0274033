"""Reads a new configuration in a process of its own, so that no request waits for it (docs/decisions/reload.md)."""

from __future__ import annotations

import json
import pickle
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from apigw import __version__
from apigw.config.errors import ConfigError, Problem
from apigw.process.child import Child, Ended
from apigw.process.handover import Handover, code
from apigw.process.outline import Outline

PATIENCE = 60.0
"""Seconds that it may take: 10,000 routes take 3 s on an idle core."""

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
        command = [self._python, "-P", "-c", _START]
        try:
            child = Child(self._reactor, command, self._patience, json.dumps(told).encode())
        except OSError as error:
            return fail(_unread(f"could not be read: {self._python}: {error.strerror}"))
        return child.ended.addCallback(self._handover)

    def _handover(self, ended: Ended) -> Handover:
        head, newline, data = ended.out.partition(b"\n")
        if ended.code or not newline:  # a policy may end it with 0, too
            if ended.said:
                log.error("the process that read the configuration: {said}", said=ended.said)
            late = f"was not read within {self._patience:g} s"
            raise _unread(late if ended.late else f"could not be read: {_how(ended)}")
        facts = json.loads(head)
        if facts["code"] != self._code:
            raise ConfigError([Problem(_other_code(facts["version"]))])
        if facts["routes"] is None:
            raise ConfigError(pickle.loads(data))
        outline = facts.get("outline")
        return Handover(data, facts["routes"], None if outline is None else Outline(**outline))


def _unread(why: str) -> ConfigError:
    return ConfigError([Problem(f"the new configuration {why}")])


def _how(ended: Ended) -> str:
    """What became of the process."""
    if ended.code < 0:
        return f"the process that read it was ended by {signal.Signals(-ended.code).name}"
    said = ended.said.splitlines()[-1] if ended.said else "it did not say why"
    return f"the process that read it ended with exit code {ended.code}: {said}"


def _other_code(version: str) -> str:
    found = f"is {version}, and {__version__} runs" if version != __version__ else "is not the one that runs"
    return f"the program on disk {found}: restart or upgrade the gateway"
