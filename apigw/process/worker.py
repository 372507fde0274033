"""A worker: one of the processes that serve, as it lives from its fork to its end."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import time
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from apigw.config.errors import ConfigError
from apigw.config.model import Config
from apigw.process.children import hear
from apigw.process.control import Control, Give, connect
from apigw.process.machine import Shared, Siblings
from apigw.process.own_log import OwnLog
from apigw.process.program import Program
from apigw.process.signals import Signals
from apigw.process.sockets import Sockets
from apigw.process.starting import READY, fail
from apigw.process.tree import CannotStart
from apigw.shared.page import Page

log = Logger()


@frozen
class Life:
    """What every worker is forked with."""

    workers: int
    config: Config
    sockets: Sockets
    page: Page
    directory: str
    log_decisions: bool
    own_log: OwnLog | None

    def __call__(self, index: int, end: socket.socket, reactor: Any) -> int:
        """Serve until the master, or its end, says to stop. Returns the exit code."""
        # The terminal signals a whole group, of which the master alone is to act.
        os.environ.pop("NOTIFY_SOCKET", None)
        signals = Signals()
        signals.install()
        signals.hold()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        hear()
        if self.own_log is None:
            faulthandler.enable(2)
        else:
            # A copy: the log's own descriptor may be another file's after a rotation.
            faulthandler.enable(self.own_log.forked())
            signals.on(signal.SIGUSR1, self.own_log.reopen)
        try:
            self._serve(index, end, reactor, signals)
        except (ConfigError, CannotStart) as error:
            fail(end, str(error))
            return 1
        except Exception as error:
            log.failure("the worker cannot go on")
            fail(end, f"apigw: a worker could not start: {error!r}")
            return 1
        finally:
            if self.own_log is not None:
                self.own_log.close()
        return 0

    def _serve(self, index: int, end: socket.socket, reactor: Any, signals: Signals) -> None:
        machine = Siblings(index, self.workers)
        self.page.become(index, machine.process)
        shared = Shared(machine, self.page, self.sockets.admin, self.sockets.public, self.sockets.bell)
        program = Program(reactor, time.time, signals, self.config, self.directory, self.log_decisions, shared)
        gives: dict[str, Give] = {
            "give": lambda asked, _: machine.give(*asked),
            "tick": lambda *_: None,
        }
        machine.control = Control(gives, lambda: os.kill(machine.process, signal.SIGTERM))
        program.root.privilegedStartService()
        program.root.startService()
        connect(reactor, end, machine.control)
        reactor.callWhenRunning(machine.control.call, READY, index)
        reactor.addSystemEventTrigger("before", "shutdown", program.root.stopService)
        reactor.run(installSignalHandlers=False)
