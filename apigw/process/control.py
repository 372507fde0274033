"""The control connection between the master and a worker: calls and answers, both ways, over a socket pair.

A message is a line of JSON and, after it, bytes that only the master sends: a configuration. The master unpickles
nothing that a worker says.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.config.errors import ConfigError
from apigw.errors import GatewayError

log = Logger()

Give = Callable[[Any, bytes], Any]
"""Answers a call: from its argument and its bytes, to a value that JSON can hold or a Deferred of one."""


class Refused(Exception):
    """The other side could not do what it was asked; the text says why."""


EXPECTED = (ConfigError, GatewayError, CancelledError, Refused)
"""Why a call fails where nothing is wrong with the program."""


@implementer(IProtocol)  # said here, it is looked up here: else each worker would, after its fork, for 0.2 MiB
class Control(Int32StringReceiver):
    """One end. ``gives`` answers the other side's calls; ``lost`` is called when the other side has ended."""

    noisy = False

    def __init__(self, gives: Mapping[str, Give], lost: Callable[[], object], most: int = 1 << 30) -> None:
        """``most``: bytes of the longest message that the other side may send."""
        self.MAX_LENGTH = most
        self._gives = gives
        self._lost = lost
        self._waiting: dict[int, Deferred[Any]] = {}
        self._last = 0
        self._open = True

    def call(self, what: str, argument: Any = None, data: bytes = b"") -> Deferred[Any]:
        """Have the other side do something. Fails with ``Refused``, or with ``ConnectionLost`` if it has ended."""
        if not self._open:
            return _failed(ConnectionLost())
        self._last += 1
        number = self._last

        def forget(_: object) -> None:
            self._waiting.pop(number, None)

        answer: Deferred[Any] = Deferred(forget)
        self._waiting[number] = answer
        self._send({"call": what, "id": number, "argument": argument}, data)
        return answer

    def stringReceived(self, string: bytes) -> None:
        line, _, data = string.partition(b"\n")
        message = json.loads(line)
        number = message["id"]
        if "call" in message:
            doing = maybeDeferred(self._give, message["call"], message["argument"], data)
            doing.addCallbacks(partial(self._done, number), partial(self._refuse, number))
            return
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return  # nobody waits any more
        if "refused" in message:
            waiting.errback(Refused(message["refused"]))
        else:
            waiting.callback(message["value"])

    def _give(self, what: str, argument: Any, data: bytes) -> Any:
        if what not in self._gives:  # the other side may be another program, before or after an upgrade
            raise Refused(f"{what} is not known here")
        return self._gives[what](argument, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(ConnectionLost())
        self._lost()

    @property
    def flushed(self) -> bool:
        """Whether all that was said has left this process."""
        transport: Any = self.transport
        return transport is None or not (transport.dataBuffer or transport._tempDataLen)

    @property
    def unread(self) -> bytes:
        """The beginning of a message whose end has not arrived."""
        return bytes(self._unprocessed)

    def hand_over(self) -> int:
        """The descriptor, for the program that this process is about to execute."""
        transport: Any = self.transport
        descriptor: int = transport.fileno()
        os.set_inheritable(descriptor, True)
        return descriptor

    def keep(self) -> None:
        """The other program was not executed."""
        transport: Any = self.transport
        os.set_inheritable(transport.fileno(), False)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _done(self, number: int, value: Any) -> None:
        self._send({"id": number, "value": value})

    def _refuse(self, number: int, failure: Failure) -> None:
        if not failure.check(*EXPECTED):
            log.failure("a call of another process failed", failure=failure)
        self._send({"id": number, "refused": str(failure.value) or repr(failure.value)})

    def _send(self, message: dict[str, Any], data: bytes = b"") -> None:
        if self._open:
            self.sendString(json.dumps(message, separators=(",", ":")).encode() + b"\n" + data)


def connect(reactor: Any, end: socket.socket, control: Control) -> None:
    """``control`` speaks over ``end`` from now on, which is closed here: the reactor has its own copy."""
    end.setblocking(False)
    factory = Factory.forProtocol(lambda: control)
    factory.noisy = False
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)
    end.close()


def _failed(error: Exception) -> Deferred[Any]:
    answer: Deferred[Any] = Deferred()
    answer.errback(error)
    return answer
