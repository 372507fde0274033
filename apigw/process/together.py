"""A new configuration for several workers: all use it, or none does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, inlineCallbacks
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, Problem
from apigw.config.model import Config
from apigw.process.control import Refused
from apigw.process.handover import unpack
from apigw.process.master import Master, Worker
from apigw.process.pieces import at_once

PREPARES_WITHIN = 60.0
"""Seconds in which all workers must have prepared a configuration, or none uses it: 10,000 routes take some 4 s on an
idle machine. One that hangs does not answer the master's ticks either, and is replaced for that."""

log = Logger()


class Together:
    """Prepares a configuration in all workers, and has all of them use it. Those that end meanwhile do not count: who
    comes in their place starts with what the master has."""

    def __init__(self, reactor: Any, master: Master) -> None:
        self._reactor = reactor
        self._master = master
        self._data = b""
        self._prepared: list[Worker] = []

    @inlineCallbacks
    def prepare(self, data: bytes) -> Any:
        """Fails with ``ConfigError`` if a worker cannot use it."""
        self._data, self._prepared = data, []
        workers = [worker for worker in self._master.living() if not worker.old]
        outcomes = yield DeferredList([self._ask(worker, data) for worker in workers], consumeErrors=True)
        refusals = {}
        for worker, (succeeded, result) in zip(workers, outcomes, strict=True):
            if succeeded:
                self._prepared.append(worker)
            elif result.check(Refused):
                refusals.update(dict.fromkeys(str(result.value).splitlines()))
            elif result.check(TimeoutError):
                refusals[f"worker {worker.index} has not prepared it within {PREPARES_WITHIN:g} s"] = None
            else:
                result.trap(ConnectionLost)
        if refusals:
            raise ConfigError([Problem(each) for each in refusals])

    def commit(self) -> Deferred[Any]:
        """Fires when no worker has what is replaced any more."""
        data, self._data = self._data, b""  # it has secrets
        config: Config = at_once(unpack(data))
        self._master.use(config)
        prepared, self._prepared = self._prepared, []
        committing = [worker.control.call("commit") for worker in prepared]
        for worker in self._master.workers():
            if worker in prepared or worker.old:
                continue
            if worker.ready:
                committing.append(self._catch_up(worker, data))
            else:
                self._master.replace(worker, "was being started with the configuration before")
        return DeferredList(committing, consumeErrors=True)

    def _catch_up(self, worker: Worker, data: bytes) -> Deferred[Any]:
        """One that has become ready since the others prepared."""
        catching_up = self._ask(worker, data).addCallback(lambda _: worker.control.call("commit"))
        return catching_up.addErrback(lambda _: self._master.drain(worker))

    def abandon(self) -> None:
        self._prepared, self._data = [], b""
        for worker in self._master.living():
            worker.control.call("abandon").addErrback(self._gone)

    def _ask(self, worker: Worker, data: bytes) -> Deferred[Any]:
        return worker.control.call("prepare", None, data).addTimeout(PREPARES_WITHIN, self._reactor)

    def _gone(self, failure: Failure) -> None:
        failure.trap(ConnectionLost, Refused)
