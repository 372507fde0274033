"""One question to one name server: by UDP, and by TCP if the answer is too long (RFC 1035 §4.2, RFC 7766).

Twisted's codec (``twisted.names.dns``) on sockets of our own. Its client takes an answer from any address that knows
the number, and logs six lines for each question. Here the socket is connected, so that the kernel drops what comes from
others, and has a random port; the number is random, too (RFC 5452 §9.2), and the answer must repeat the question.
"""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

_LENGTH = Struct("!H")


class Broken(Exception):
    """The connection to the name server ended without an answer."""


def ask(reactor: Any, server: tuple[str, int], name: str, kind: int, timeout: float) -> Deferred[dns.Message]:
    """The answer of ``server`` about ``name``, whatever its code. Fails with ``OSError``, ``TimeoutError`` (of
    ``defer``) or ``Broken``."""
    question = dns.Message(int.from_bytes(os.urandom(2), "big"), recDes=1)
    question.addQuery(name.encode("ascii"), kind, dns.IN)
    try:
        datagram = _Datagram(reactor, server, question)
    except OSError:
        return fail()
    answering: Deferred[dns.Message] = datagram.answer

    def answered(message: dns.Message) -> Any:
        return _by_tcp(reactor, server, question, timeout) if message.trunc else message

    return answering.addCallback(answered).addTimeout(timeout, reactor)


def _parsed(data: bytes, question: dns.Message) -> dns.Message | None:
    """The message, if it is an answer to the question."""
    message = dns.Message()
    try:
        message.fromStr(data)
    except Exception:  # whatever a stranger's bytes do to the codec
        return None
    if message.id != question.id or not message.answer or len(message.queries) != 1:
        return None
    asked, wanted = message.queries[0], question.queries[0]
    same = asked.name.name.lower() == wanted.name.name.lower() and (asked.type, asked.cls) == (wanted.type, wanted.cls)
    return message if same else None


@implementer(IReadDescriptor)
class _Datagram:
    """A question by UDP. What is no answer to it is not looked at. Raises ``OSError``."""

    def __init__(self, reactor: Any, server: tuple[str, int], question: dns.Message) -> None:
        self._reactor = reactor
        self._question = question
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self._close())
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(server)
            self._socket.send(question.toStr())
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        try:
            message = _parsed(self._socket.recv(65535), self._question)
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(Failure())
            return
        if message is not None:
            self._close()
            self.answer.callback(message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The kernel says that nobody listens there, or the like."""
        self._close()
        if not self.answer.called:
            self.answer.errback(Broken("the name server is not there"))

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()


def _by_tcp(reactor: Any, server: tuple[str, int], question: dns.Message, timeout: float) -> Deferred[dns.Message]:
    of_family = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
    stream = _Stream(question)
    factory = Factory.forProtocol(lambda: stream)
    factory.noisy = False
    connecting: Deferred[Any] = of_family(reactor, *server, timeout=timeout).connect(factory)
    return connecting.addCallback(lambda _: stream.answer)


class _Stream(Protocol):
    """A question by TCP."""

    transport: Any

    def __init__(self, question: dns.Message) -> None:
        self._question = question
        self._received = b""
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        data = self._question.toStr()
        self.transport.write(_LENGTH.pack(len(data)) + data)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack_from(self._received)
        if len(self._received) >= _LENGTH.size + length:
            message = _parsed(self._received[_LENGTH.size : _LENGTH.size + length], self._question)
            if message is not None and not self.answer.called:
                self.answer.callback(message)
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(Broken("the name server closed the connection"))
