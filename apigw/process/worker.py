"""A worker: one of the processes that serve, from its fork to its end."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from apigw.config.errors import ConfigError
from apigw.process.control import Control, Give, connect
from apigw.process.machine import Life, Siblings
from apigw.process.outlived import Tells
from apigw.process.place import Sharing
from apigw.process.program import Program
from apigw.process.signals import Signals
from apigw.process.starting import READY, fail
from apigw.process.tree import CannotStart

LAST_WORD = 2.0
"""Seconds in which the master must have heard it."""

log = Logger()


def live(life: Life, index: int, end: socket.socket, reactor: Any) -> int:
    """Serve until the master, or its end, says to stop. ``end`` is of the connection to it. Returns the exit code."""
    os.environ.pop("NOTIFY_SOCKET", None)  # the master is what the service manager knows
    share_cores()
    signals = Signals()
    # A terminal signals the whole group, and the master alone is to act.
    signals.install(ignoring=(signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))
    signals.hold()
    own_log = life.own_log
    if own_log is None:
        faulthandler.enable(2)
    else:
        # A copy: the log's own descriptor may be another file's after a rotation.
        faulthandler.enable(own_log.forked(f"worker {index}"))
        signals.on(signal.SIGUSR1, own_log.reopen)
    try:
        _serve(life, index, end, reactor, signals)
    except (ConfigError, CannotStart) as error:
        fail(end, str(error))
        return 1
    except Exception as error:
        log.failure("the worker cannot go on")
        fail(end, f"apigw: a worker could not start: {error!r}")
        return 1
    finally:
        if own_log is not None:
            own_log.close()
    return 0


def share_cores() -> None:
    """Have this process not interrupt another when something arrives for it, but run when a core is free: SCHED_BATCH.

    Else workers that have to share cores, with each other and with whoever sends, are woken for each request, and not
    for several. Nothing changes where a core is free, nor where an operator has chosen another policy.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _serve(life: Life, index: int, end: socket.socket, reactor: Any, signals: Signals) -> None:
    machine = Siblings(index, life.workers, reactor)
    life.page.become(index, machine.process)
    place = Sharing(reactor, machine, life.page, life.sockets)
    program = Program(reactor, time.time, signals, life.config, life.directory, place, life.log_decisions)
    count_lost = program.metrics.lines_lost("daemon")
    if life.own_log is not None:
        life.own_log.count_lost(count_lost)
    gives: dict[str, Give] = {
        "lost": lambda lines, _: count_lost(lines),
        "give": lambda asked, _: machine.give(*asked),
        "tick": lambda *_: None,
        "prepare": lambda _, data: program.renewal.prepare(data),
        "commit": lambda *_: program.renewal.commit(),
        "abandon": lambda *_: program.renewal.abandon(),
        "reloads": lambda told, _: place.reloads(*told),
        "upgraded": lambda succeeded, _: program.metrics.upgraded(succeeded),
    }

    # The end of the master is a SIGTERM.
    machine.control = Control(gives, lambda: os.kill(machine.process, signal.SIGTERM))
    tells = Tells(
        reactor,
        lambda: machine.give("metrics", None),
        lambda said: machine.control.call("counted", said),
        lambda: len(program.current.snapshot.routes),
    )
    tells.setServiceParent(program.root)
    program.root.privilegedStartService()
    program.root.startService()
    connect(reactor, end, machine.control)
    # A master that has ended before it answers has said so by its end.
    reactor.callWhenRunning(
        lambda: machine.control.call(READY).addCallbacks(lambda _: machine.joined(), lambda _: None)
    )
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: program.root.stopService().addCallback(lambda _: leave(machine, reactor))
    )
    reactor.run(installSignalHandlers=False)


def leave(machine: Siblings, reactor: Any) -> Deferred[object]:
    """Say what was counted to the end, so that it is in the gateway's totals.

    Fires in a turn of its own: then the reactor closes all connections, and must not do that while it reads the
    master's answer from one of them.
    """
    saying = machine.give("metrics", None).addCallback(lambda said: machine.control.call("leave", said))
    heard = saying.addTimeout(LAST_WORD, reactor).addErrback(lambda _: None)
    return heard.addCallback(lambda _: deferLater(reactor, 0))
