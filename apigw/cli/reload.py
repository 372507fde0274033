"""``apigw reload``: reload a running gateway, wait, and print the outcome (docs/decisions/reload-command.md)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from apigw.cli.outcome import FOUND, REFUSED, complain, warning
from apigw.cli.remote import Admin, NotAnswered
from apigw.config.errors import ConfigError
from apigw.config.load import load
from apigw.process.rules import RULES

INTERVAL = 0.05
"""Seconds between two questions whether the reload has ended."""

PROC = Path("/proc")


class NotReloaded(Exception):
    """The gateway goes on with the configuration that it has. The message is printed."""


class Noted(dict[str, str]):
    """An environment that notes which of its variables are read."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def reload(options: argparse.Namespace) -> int:
    environ = Noted(os.environ)
    try:
        config = load(options.config, environ, RULES)
    except ConfigError as error:
        complain(options.config, error)
        return REFUSED
    try:
        admin = Admin.of_endpoint(config.gateway.admin) if options.admin is None else Admin.parse(options.admin)
        status = _reloaded(admin, options.config, environ, options.timeout)
    except (NotAnswered, NotReloaded, ValueError) as error:
        print(f"apigw: {error}", file=sys.stderr)
        return REFUSED
    for problem in status["problems"]:
        print(f"not reloaded: {problem}", file=sys.stderr)
    if status["last_reload"] != "succeeded":
        return REFUSED
    for each in config.warnings:
        print(warning(each), file=sys.stderr)
    print(f"process {status['process']}: reloaded")
    return FOUND


def _reloaded(admin: Admin, directory: str, environ: Noted, timeout: float) -> Mapping[str, Any]:
    """Signal the gateway, and return its status after the reload. Raises ``NotReloaded`` or ``NotAnswered``."""
    before = admin.get("/status")
    process: int = before["process"]
    _check_process(process, admin)
    if os.path.realpath(directory) != os.path.realpath(before["directory"]):
        raise NotReloaded(f"the gateway at {admin} reads {before['directory']}, and not {os.path.abspath(directory)}")
    changed = sorted(_changed(process, environ))
    if changed:
        names = ", ".join(changed)
        raise NotReloaded(f"a change of these environment variables needs a restart of process {process}: {names}")
    try:
        os.kill(process, signal.SIGHUP)
    except OSError as error:
        raise NotReloaded(f"cannot signal process {process}: {error.strerror}") from None
    ends_at = time.monotonic() + timeout
    while time.monotonic() < ends_at:
        time.sleep(INTERVAL)
        status: Mapping[str, Any] = admin.get("/status")
        if status["process"] != process:
            raise NotReloaded(f"process {process} has ended; {status['process']} answers in its place")
        if status["reloads"] > before["reloads"] and not status["reloading"]:
            return status
    raise NotReloaded(f"process {process} has not ended its reload after {timeout:g} s")


def _check_process(process: int, admin: Admin) -> None:
    """Refuse to signal anything else: a gateway in another container has a number of that container's."""
    try:
        command = (PROC / str(process) / "cmdline").read_bytes()
    except OSError:
        command = b""
    if b"apigw" not in command.split(b"\0"):
        raise NotReloaded(f"the gateway at {admin} is process {process}, but not here: run this where it runs")


def _changed(process: int, environ: Noted) -> Iterable[str]:
    """The variables of this environment that the configuration uses, and that the process has otherwise or not at all.

    One that is only missing here says nothing: a shell does not have what the service manager sets.
    """
    try:
        text = (PROC / str(process) / "environ").read_bytes()
    except OSError as error:
        print(
            f"apigw: warning: cannot compare the environment with that of process {process}: {error.strerror}",
            file=sys.stderr,
        )
        return ()
    theirs = dict(entry.split("=", 1) for entry in os.fsdecode(text).split("\0") if "=" in entry)
    return (name for name in environ.names if name in environ and theirs.get(name) != environ[name])
