"""``apigw reload`` and ``apigw upgrade``: signal a running gateway, wait, and print the outcome.

Why by signals: docs/decisions/reload-command.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from attrs import frozen

from apigw.cli.admin import Admin, NotAnswered
from apigw.cli.outcome import FOUND, REFUSED, complain, warning
from apigw.cli.where import admin_of
from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.process.rules import RULES

INTERVAL = 0.05
"""Seconds between two questions whether the reload has ended."""

PROC = Path("/proc")


class NotChanged(Exception):
    """The gateway goes on as before. The message is printed."""


class Noted(dict[str, str]):
    """An environment that notes which of its variables are read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def reload(options: argparse.Namespace) -> int:
    return _change(options, RELOAD)


def upgrade(options: argparse.Namespace) -> int:
    return _change(options, UPGRADE)


@frozen
class _Change:
    """What a signal makes the gateway do, and the keys of ``/status`` that tell how it went."""

    signal: int
    count: str
    runs: str
    name: str
    done: str


RELOAD = _Change(signal.SIGHUP, "reloads", "reloading", "reload", "reloaded")
UPGRADE = _Change(signal.SIGUSR2, "upgrades", "upgrading", "upgrade", "upgraded")


def _change(options: argparse.Namespace, change: _Change) -> int:
    try:
        admin = admin_of(options)
        before = _found(change, admin, options.config)
        process: int = before["process"]
        theirs = _environment(process)
        environ = Noted({**theirs, **os.environ})  # a shell does not have what the service manager sets
        config = load(options.config, environ, RULES)
        changed = sorted(name for name in environ.names & os.environ.keys() if theirs.get(name) != os.environ[name])
        if changed and theirs:
            names = ", ".join(changed)
            raise NotChanged(f"a change of these environment variables needs a restart of process {process}: {names}")
        try:
            os.kill(process, change.signal)
        except OSError as error:
            raise NotChanged(f"cannot signal process {process}: {error.strerror}") from None
        _waited_for(change, admin, process, before[change.count], options.timeout)
    except ConfigError as error:
        complain(options.config, error)
        return REFUSED
    except (NotAnswered, NotChanged, ValueError) as error:
        print(error if str(error).startswith("not ") else f"apigw: {error}", file=sys.stderr)
        return REFUSED
    for each in config.warnings:
        print(warning(each), file=sys.stderr)
    print(f"process {process}: {change.done}")
    return FOUND


def _found(change: _Change, admin: Admin, directory: str) -> Mapping[str, Any]:
    """The status of the gateway that is to change. Raises ``NotChanged`` or ``NotAnswered``."""
    status = admin.get("/status")
    if not {"process", "workers", change.count, change.runs} <= status.keys():
        raise NotChanged(f"what answers at {admin} is no gateway of this version")
    process: int = status["process"]
    _check_process(process, admin)
    theirs = status["directory"]
    if os.path.realpath(directory) != os.path.realpath(theirs):
        ours = os.path.abspath(directory)
        raise NotChanged(f"the gateway at {admin} reads {theirs}, and not {ours}: give --config {quote(theirs)}")
    if change is UPGRADE and status["workers"][0]["process"] == process:
        raise NotChanged(f"process {process} has one worker: restart it instead")
    return status


def _waited_for(change: _Change, admin: Admin, process: int, count: int, timeout: float) -> Mapping[str, Any]:
    ends_at = time.monotonic() + timeout
    while time.monotonic() < ends_at:
        time.sleep(INTERVAL)
        try:
            status: Mapping[str, Any] = admin.get("/status")
        except NotAnswered:
            # Nobody can answer while the master executes the new program.
            if change is UPGRADE and (PROC / str(process)).exists():
                continue
            raise
        if status["process"] != process:
            raise NotChanged(f"process {process} has ended; {status['process']} answers in its place")
        if status[change.count] > count and not status[change.runs]:
            if change is UPGRADE and status["upgrade_problem"]:
                raise NotChanged("not upgraded: " + status["upgrade_problem"].replace("\n", "\nnot upgraded: "))
            if change is RELOAD and status["last_reload"] != "succeeded":
                raise NotChanged("\n".join(f"not reloaded: {problem}" for problem in status["problems"]))
            return status
    raise NotChanged(f"process {process} has not ended its {change.name} after {timeout:g} s")


def _check_process(process: int, admin: Admin) -> None:
    """Refuse to signal anything else: a gateway in another container has a number of that container's."""
    try:
        command = (PROC / str(process) / "cmdline").read_bytes()
    except OSError:
        command = b""
    if b"apigw" not in command.split(b"\0"):
        raise NotChanged(f"the gateway at {admin} is process {process}, but not here: run this where it runs")


def _environment(process: int) -> Mapping[str, str]:
    """The environment of a process; empty, with a warning, where it cannot be read."""
    try:
        text = (PROC / str(process) / "environ").read_bytes()
    except OSError as error:
        print(f"apigw: warning: cannot read the environment of process {process}: {error.strerror}", file=sys.stderr)
        return {}
    return dict(entry.split("=", 1) for entry in os.fsdecode(text).split("\0") if "=" in entry)
