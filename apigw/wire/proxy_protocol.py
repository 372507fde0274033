"""The PROXY protocol, versions 1 and 2: a load balancer that passes bytes on says first whose they are.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from attrs import frozen
from twisted.internet import address, protocol
from twisted.internet.interfaces import IAddress, ITransport
from twisted.python.failure import Failure

from apigw.wire.reactor.layers import replace_protocol
from apigw.wire.room import Place
from apigw.wire.server import Server

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""How version 2 begins (§2.2)."""
MOST_OF_LINE = 107
"""Bytes of version 1, with its CR LF (§2.1)."""
MOST_OF_BLOCK = 4096
"""Bytes of version 2 behind its first 16. Addresses take 36; clouds add some hundred, and a certificate 2,000."""

_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x20-\x7e]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
).fullmatch
_SIZES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
"""Bytes of addresses by family and transport: none, TCP over IPv4, over IPv6, and a unix socket's stream."""


class Malformed(Exception):
    """Whoever connects does not speak the PROXY protocol."""


@frozen
class Header:
    """``size`` in bytes. ``source`` is None where the load balancer speaks for itself, or does not know."""

    size: int
    source: IAddress | None


def parse(data: bytes) -> Header | None:
    """The header at the beginning of ``data``; None if it has not come whole. Raises ``Malformed``."""
    if data.startswith(SIGNATURE):
        return _parse_block(data)
    if SIGNATURE.startswith(data):
        return None
    end = data.find(b"\r\n", 0, MOST_OF_LINE)
    if end < 0:
        if len(data) >= MOST_OF_LINE or not (data.startswith(b"PROXY ") or b"PROXY ".startswith(data)):
            raise Malformed
        return None
    line = _LINE(data, 0, end + 2)
    if line is None:
        raise Malformed
    if line[1] is None:
        return Header(end + 2, None)
    source = _address(line[2], line[1])
    _address(line[3], line[1])
    if int(line[4]) > 65535 or int(line[5]) > 65535:
        raise Malformed
    return Header(end + 2, _made(source, int(line[4])))


def _address(text: bytes, version: bytes) -> IPv4Address | IPv6Address:
    try:
        found = ip_address(text.decode("ascii"))
    except ValueError:
        raise Malformed from None
    if found.version != int(version):
        raise Malformed
    return found


def _parse_block(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21) or length > MOST_OF_BLOCK:
        raise Malformed
    if command == 0x21 and (family not in _SIZES or length < _SIZES[family]):
        raise Malformed
    if len(data) < 16 + length:
        return None
    if command == 0x20 or family not in (0x11, 0x21):
        return Header(16 + length, None)
    width = 4 if family == 0x11 else 16
    ports = 16 + 2 * width
    return Header(16 + length, _made(ip_address(data[16 : 16 + width]), int.from_bytes(data[ports : ports + 2], "big")))


def _made(source: IPv4Address | IPv6Address, port: int) -> IAddress:
    kind = address.IPv4Address if source.version == 4 else address.IPv6Address
    made: IAddress = kind("TCP", str(source), port)
    return made


class ProxiedFactory(protocol.ServerFactory):
    """Hands a connection to ``wrapped``, which may be TLS, once its header says whose it is."""

    noisy = False

    def __init__(self, server: Server, wrapped: Any) -> None:
        self.server = server
        self.wrapped = wrapped

    def buildProtocol(self, addr: IAddress | None) -> protocol.Protocol | None:
        return Announced(self, addr) if self.server.make_room() else None


class Announced(protocol.Protocol):
    """A connection of which the header has not come yet. It ends where that is malformed, or late."""

    version = "opening"
    peer = b""
    """Not yet known: the load balancer's own address has the connections of many clients."""

    def __init__(self, factory: ProxiedFactory, peer: IAddress | None) -> None:
        self._factory = factory
        self._peer = peer
        self.place = Place(self)
        self._first = b""
        self.deadline = 0.0

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        server = self._factory.server
        self.deadline = server.deadlines.seconds() + server.settings.client_header_timeout
        server.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._first += data
        try:
            header = parse(self._first)
        except Malformed:
            self.cut()
            return
        if header is not None:
            self._hand_on(header)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._factory.server.closed(self)

    def deadline_passed(self) -> None:
        self.cut()

    def drain(self) -> None:
        self.cut()

    def make_room(self) -> None:
        self.cut()

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]  # every TCP transport has it

    def _hand_on(self, header: Header) -> None:
        self._factory.server.closed(self)  # its place is the other's
        built = self._factory.wrapped.buildProtocol(header.source or self._peer)
        if built is None:
            self.cut()
            return
        replace_protocol(self.transport, built)
        built.makeConnection(self.transport)
        rest, self._first = self._first[header.size :], b""
        if rest:
            built.dataReceived(rest)
