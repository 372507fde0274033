"""Constructs what the master runs: the composition root of ``workers: N`` (docs/explanation/workers.md)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from apigw.config.model import Config
from apigw.policy.all import POLICIES
from apigw.process.handover import without_details
from apigw.process.machine import Life
from apigw.process.master import Master
from apigw.process.outline import outline_of
from apigw.process.own_log import OwnLog
from apigw.process.reading import Reading
from apigw.process.reload import Reload
from apigw.process.reports import Reports
from apigw.process.signals import ENDING, Obeying, Signals, Stop
from apigw.process.sockets import Sockets
from apigw.process.systemd import expect_within, watchdog
from apigw.process.together import Together
from apigw.process.tree import Ordered
from apigw.process.trial import try_out
from apigw.process.upgrade import Handed, Upgrade
from apigw.process.watching import Watching
from apigw.process.worker import live
from apigw.shared.page import LayoutChanged, Page
from apigw.wire.fetch import rehearse

log = Logger()


def master(
    reactor: Any,
    workers: int,
    config: Config,
    directory: str,
    log_decisions: bool,
    signals: Signals,
    own_log: OwnLog | None,
    install_reactor: Callable[[], None],
    command: Sequence[str],
    pidfile: str,
    handed: Handed | None,
) -> Service:
    """The tree of services, not started. Raises ``ConfigError`` if no worker could start with the configuration.

    ``command`` starts the program anew in this process, and ``pidfile`` is twistd's then. ``handed``: what the program
    has handed over that has executed this one.
    """
    try_out(config, directory, reactor)
    rehearse()
    page = _page(workers, config, handed)
    for policy in POLICIES:
        policy.share(config, page)
    sockets = Sockets(config.gateway, () if handed is None else handed.sockets)
    life = Life(workers, without_details(config), sockets, page, directory, log_decisions, own_log)
    running = Master(reactor, life, live, install_reactor, Reports(True, workers), lambda: signals.ending)

    def tell() -> None:
        running.tell("reloads", [reload.told(), False])

    def reloaded(_: bool) -> None:
        tell()
        running.tell_one("reloads", [reload.told(), True])

    together = Together(reactor, running)
    reload = Reload(reactor, Reading(reactor, directory), together, reloaded, tell, outline_of(config))
    running.came = lambda worker: running.tell("reloads", [reload.told(), False], worker)
    if handed is not None:
        reload.follow({**handed.progress, "digest": reload.digest})
        running.adopt(handed.workers)
        running.outlived.total = handed.gone
        running.outlived.last = {int(index): said for index, said in handed.last.items()}
        reactor.callWhenRunning(expect_within, os.environ)
        if handed.pidfile:
            reactor.addSystemEventTrigger("after", "shutdown", _remove, handed.pidfile)
    if own_log is not None:
        own_log.count_lost(lambda lines: reactor.callFromThread(running.lost, lines))
    upgrade = Upgrade(
        reactor,
        command,
        pidfile,
        running,
        reload,
        own_log,
        tell,
        lambda succeeded: running.tell_one("upgraded", succeeded),
        lambda: bool(signals.due),
    )
    if handed is not None:
        upgrade.follow()
    stop = Stop(reactor, lambda: running.signal(signal.SIGTERM))
    for number in ENDING:
        signals.on(number, stop)
    signals.on(signal.SIGHUP, reload.reload)
    signals.on(signal.SIGUSR1, lambda: running.signal(signal.SIGUSR1))
    signals.on(signal.SIGUSR2, upgrade.upgrade)
    root = Ordered()
    alive = watchdog(reactor, os.environ, lambda: running.serves)
    if alive is not None:
        alive.setServiceParent(root)
    watching = Watching(reactor, directory, lambda: running.life.config, reload.reload)
    for service in (running, reload, upgrade, watching, Obeying(reactor, signals)):
        service.setServiceParent(root)
    return root


def _page(workers: int, config: Config, handed: Handed | None) -> Page:
    """The one that there was, if this program can read it and its size is the configured one; else an empty one."""
    if handed is None:
        return Page.make(workers, config.gateway.limits_memory)
    try:
        page = Page.open(handed.page)
        if page.limits_memory == config.gateway.limits_memory:
            page.workers = workers
            return page
        why = "limits_memory has changed"
        page.close()
    except LayoutChanged:
        why = "the program has another layout"
        os.close(handed.page)
    log.warn("what the workers share begins empty: {why}", why=why)
    return Page.make(workers, config.gateway.limits_memory)


def _remove(pidfile: str) -> None:
    with suppress(OSError):
        os.unlink(pidfile)
