"""Constructs what the master runs: the composition root of ``workers: N`` (docs/explanation/workers.md)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

from apigw.config.model import Config
from apigw.process.handover import without_details
from apigw.process.machine import Life
from apigw.process.master import Master
from apigw.process.outlived import Outlived
from apigw.process.own_log import OwnLog
from apigw.process.reading import Reading
from apigw.process.reload import Reload
from apigw.process.reports import Reports
from apigw.process.signals import ENDING, Obeying, Signals, Stop
from apigw.process.sockets import Sockets
from apigw.process.together import Together
from apigw.process.tree import Ordered
from apigw.process.trial import try_out
from apigw.process.worker import live
from apigw.shared.page import Page


def master(
    reactor: Any,
    workers: int,
    config: Config,
    directory: str,
    log_decisions: bool,
    signals: Signals,
    own_log: OwnLog | None,
    install_reactor: Callable[[], None],
) -> Service:
    """The tree of services, not started. Raises ``ConfigError`` if no worker could start with the configuration."""
    try_out(config, directory, reactor)
    page = Page.make(workers, config.gateway.limits_memory)
    sockets = Sockets(config.gateway)
    life = Life(workers, without_details(config), sockets, page, directory, log_decisions, own_log)
    running = Master(reactor, life, live, install_reactor, Reports(True))

    reload = Reload(
        reactor,
        Reading(reactor, directory),
        Together(reactor, running),
        lambda _: running.tell("reloads", [reload.told(), True]),
        lambda: running.tell("reloads", [reload.told(), False]),
    )
    running.came = lambda worker: running.tell("reloads", [reload.told(), False], worker)
    stop = Stop(reactor, lambda: running.signal(signal.SIGTERM))
    for number in ENDING:
        signals.on(number, stop)
    signals.on(signal.SIGHUP, reload.reload)
    signals.on(signal.SIGUSR1, lambda: running.signal(signal.SIGUSR1))
    outlived = Outlived()
    running.heard = outlived.heard
    running.left = lambda worker: outlived.left(worker.index, died=bool(running.running))
    root = Ordered()
    for service in (running, reload, Obeying(reactor, signals)):
        service.setServiceParent(root)
    return root
