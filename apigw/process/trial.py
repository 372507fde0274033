"""Checks whether the gateway would start with a configuration, by constructing the program without starting it.

No port is bound, no connection opened, no thread started, and no log written.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.endpoints import serverFromString

from apigw.config import endpoints
from apigw.config.errors import ConfigError, Problem, problem_in
from apigw.config.model import Config, Path
from apigw.process.place import Alone
from apigw.process.program import Program
from apigw.process.signals import Signals
from apigw.wire.tls import reason


def try_out(config: Config, directory: str, reactor: Any) -> None:
    """Construct the program. ``reactor`` must never run. Raises ``ConfigError`` with its problems."""
    gateway = config.gateway
    problems = _endpoint(reactor, config, ("gateway", "admin"), gateway.admin)
    for index, listen in enumerate(gateway.listen):
        problems += _endpoint(reactor, config, ("gateway", "listen", index), listen.endpoint)
    try:
        Program(reactor, time.time, Signals(), config, directory, Alone(reactor))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)


def _endpoint(reactor: Any, config: Config, path: Path, text: str | None) -> list[Problem]:
    """Those of ``ssl:`` read their files when they are made. What systemd passes on, only the daemon is given."""
    if text is not None and endpoints.parse(text).kind != "systemd":
        try:
            serverFromString(reactor, text)
        except Exception as error:
            return [problem_in(config, path, f"cannot be used: {reason(error)}")]
    return []
