"""Graceful shutdown: wait for the exchanges in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from apigw.proxy.pipeline import Pipeline
from apigw.wire.channel import ChannelFactory

TURNS = 4
"""Of the reactor: so many it may take to close a connection to a service after its client's."""

log = Logger()


ANSWERED_WITHIN = 3.0
"""Seconds that an operator's request may take when a worker ends: it waits two at most for the other workers."""


class LastAnswers(Service):
    """Stopping waits for the operators' requests in flight: one in the middle of an upgrade is to be answered, too."""

    def __init__(self, reactor: Any, factory: ChannelFactory) -> None:
        self._reactor = reactor
        self._factory = factory

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        factory = self._factory
        factory.draining = True
        factory.drain()
        if factory.channels:
            empty: Deferred[None] = Deferred()
            factory.on_empty = lambda: None if empty.called else empty.callback(None)
            timer = self._reactor.callLater(ANSWERED_WITHIN, factory.cut)
            yield empty
            if timer.active():
                timer.cancel()


class Drain(Service):
    """Stopping waits for the exchanges in flight, up to ``drain_timeout`` seconds, and then cuts the others."""

    def __init__(self, reactor: Any, factory: ChannelFactory, pipeline: Pipeline, timeout: Callable[[], float]) -> None:
        self._reactor = reactor
        self._factory = factory
        self._pipeline = pipeline
        self._timeout = timeout
        self._cut_now: Deferred[None] = Deferred()

    def cut(self) -> None:
        """Cut all exchanges now."""
        if not self._cut_now.called:
            self._cut_now.callback(None)

    @inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        # Requests that had arrived whole are in sockets that the reactor reads within its next turns.
        self._factory.draining = True
        for _ in range(2):
            yield deferLater(self._reactor, 0)
        self._factory.drain()
        empty: Deferred[None] = Deferred()
        if not self._factory.channels:
            return
        log.info("draining: {count} exchanges in flight", count=self._pipeline.in_flight)
        self._factory.on_empty = lambda: None if empty.called else empty.callback(None)
        timer = self._reactor.callLater(self._timeout(), self.cut)
        self._cut_now.addCallback(self._cut)
        yield empty
        if timer.active():
            timer.cancel()
        # A tunnel is over, and has its line in the log, when the service's side of it is closed too.
        for _ in range(TURNS):
            if self._pipeline.in_flight:
                yield deferLater(self._reactor, 0)

    def _cut(self, _: object) -> None:
        self._pipeline.cut = True
        self._factory.cut()
