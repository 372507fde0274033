"""A name server whose zone a test writes: Twisted's, over UDP and TCP on one local port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.names.server import DNSServerFactory


class Zone:
    """``records`` by name and kind: lists of payloads. A name with none of any kind does not exist."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Any]] = {}
        self.broken: set[tuple[str, int]] = set()
        """Questions that are answered with SERVFAIL."""
        self.asked: list[tuple[str, int]] = []

    def addresses(self, name: str, *addresses: str, ttl: int = 60) -> None:
        """These, and no others, are the addresses of ``name``."""
        self.records[name, dns.A] = [dns.Record_A(each, ttl) for each in addresses if ":" not in each]
        self.records[name, dns.AAAA] = [dns.Record_AAAA(each, ttl) for each in addresses if ":" in each]

    def alias(self, name: str, target: str, ttl: int = 60) -> None:
        self.records[name, dns.CNAME] = [dns.Record_CNAME(target.encode(), ttl)]

    def services(self, name: str, *records: tuple[int, int, int, str], ttl: int = 60) -> None:
        """Each is a priority, a weight, a port and a name."""
        self.records[name, dns.SRV] = [
            dns.Record_SRV(priority, weight, port, target.encode(), ttl) for priority, weight, port, target in records
        ]

    def query(self, query: Any, timeout: Any = None) -> Any:
        name, kind = query.name.name.decode().lower(), query.type
        self.asked.append((name, kind))
        if (name, kind) in self.broken:
            return defer.fail(OSError())
        if not any(known == name for known, _ in self.records):
            return defer.fail(DNSNameError())
        answers = []
        for _ in range(5):
            alias = self.records.get((name, dns.CNAME))
            if not alias:
                break
            answers.append(self._header(name, alias[0]))
            name = alias[0].name.name.decode()
        answers += [self._header(name, each) for each in self.records.get((name, kind), [])]
        return defer.succeed((answers, [], []))

    @staticmethod
    def _header(name: str, payload: Any) -> Any:
        return dns.RRHeader(name.encode(), payload.TYPE, dns.IN, payload.ttl, payload)


class Truncating(DNSServerFactory):
    """Sends 512 bytes by UDP, as RFC 1035 §4.2.1 says, and the rest by TCP."""

    noisy = False

    def sendReply(self, protocol: Any, message: Any, address: Any) -> None:
        message.maxSize = 0 if address is None else 512
        super().sendReply(protocol, message, address)


class Server:
    """Serves a zone from ``start`` to ``stop``."""

    def __init__(self, reactor: Any) -> None:
        self.zone = Zone()
        self._reactor = reactor
        self._ports: list[Any] = []

    def start(self) -> Server:
        factory = Truncating(clients=[self.zone])
        while True:
            udp = self._reactor.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
            self.port: int = udp.getHost().port
            try:
                tcp = self._reactor.listenTCP(self.port, factory, interface="127.0.0.1")
            except CannotListenError:
                udp.stopListening()
                continue
            self._ports = [udp, tcp]
            return self

    def stop(self) -> Any:
        return defer.DeferredList([port.stopListening() for port in self._ports])


class Apart:
    """Serves a zone by UDP in a thread, for daemons. ``before`` each answer the zone may be changed."""

    def __init__(self) -> None:
        self.zone = Zone()
        self.before: Callable[[], object] = lambda: None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, address = self._socket.recvfrom(512)
                message = dns.Message()
                message.fromStr(data)
                self.before()
                message.answer = 1
                self.zone.query(message.queries[0]).addCallbacks(
                    partial(self._found, message), partial(self._missing, message)
                )
                self._socket.sendto(message.toStr(), address)
            except OSError:
                return

    @staticmethod
    def _found(message: Any, sections: Any) -> None:
        message.answers = sections[0]

    @staticmethod
    def _missing(message: Any, _: Any) -> None:
        message.rCode = dns.ENAME
