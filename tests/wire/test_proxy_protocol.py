"""Headers of the PROXY protocol: which are read, and what of them is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_transport import FakeTransport
from support.http1_server import PEER, Server, cut_at, one_by_one

from apigw.wire.channel import Settings
from apigw.wire.proxy_protocol import MOST_OF_BLOCK, MOST_OF_LINE, SIGNATURE, Malformed, ProxiedFactory, parse

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def block(family: int, addresses: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    size = len(addresses) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + addresses


FOUR = bytes((203, 0, 113, 7, 10, 0, 0, 1, 0x14, 0, 0, 80))
SIX = bytes.fromhex("20010db8000000000000000000000001") + bytes(16) + b"\x14\0\0\x50"
GOOD = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 5120 80\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::1 ::1 5120 80\r\n", "2001:db8::1"),
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 0 65535\r\n", "203.0.113.7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 x y z\r\n", None),
    (block(0x11, FOUR), "203.0.113.7"),
    (block(0x11, FOUR + b"\x04\0\x01x"), "203.0.113.7"),
    (block(0x21, SIX), "2001:db8::1"),
    (block(0x11, FOUR, command=0x20), None),
    (block(0, b"", command=0x20), None),
    (block(0x11, b"", command=0x20), None),
    (block(0x12, FOUR, command=0x20), None),
    (block(0, b"whatever"), None),
    (block(0x31, b"/run/a".ljust(216, b"\0")), None),
    (block(0x11, FOUR + bytes(MOST_OF_BLOCK - 12)), "203.0.113.7"),
]
BAD = [
    GET,
    b"PROXY",
    b"proxy TCP4 203.0.113.7 10.0.0.1 1 80\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 80 \r\n",
    b"PROXY  TCP4 203.0.113.7 10.0.0.1 1 80\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 80\n" + GET,
    b"PROXY TCP4 203.0.113.300 10.0.0.1 1 80\r\n",
    b"PROXY TCP4 203.0.113.07 10.0.0.1 1 80\r\n",
    b"PROXY TCP4 203.0.113.7 here 1 80\r\n",
    b"PROXY TCP4 ::1 ::1 1 80\r\n",
    b"PROXY TCP6 203.0.113.7 10.0.0.1 1 80\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 80\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 80\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 01 80\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 -1 80\r\n",
    b"PROXY UDP4 203.0.113.7 10.0.0.1 1 80\r\n",
    b"PROXY UNKNOWN " + b"x" * MOST_OF_LINE + b"\r\n",
    b"PROXY UNKNOWN\0\r\n",
    block(0x11, FOUR, command=0x11),
    block(0x11, FOUR, command=0x22),
    block(0x12, FOUR),
    block(0x41, FOUR),
    block(0x11, FOUR[:8]),
    block(0x21, FOUR),
    block(0x11, FOUR, length=MOST_OF_BLOCK + 1),
    SIGNATURE[:5] + b"x",
]


class Scene:
    """A listener that reads headers, in front of a server in memory."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.server = Server(settings or Settings())
        self.factory = ProxiedFactory(self.server.factory, self.server.factory)

    def connect(self) -> FakeTransport:
        built: Any = self.factory.buildProtocol(PEER)
        return FakeTransport(self.server.clock).connect(built)

    @property
    def peers(self) -> list[bytes]:
        return [echo.request.stream.peer for echo in self.server.seen]


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_whose_connection_it_is(header: bytes, source: str | None) -> None:
    """The client is who the header says, in any pieces; without an address it is the peer."""
    for pieces in (
        [header + GET],
        [header, GET],
        [*one_by_one(header), GET],
        cut_at(header + GET, [3, len(header) + 3]),
    ):
        scene = Scene()
        transport = scene.connect()
        for piece in pieces:
            transport.deliver(piece)
        assert scene.peers == [(source or PEER.host).encode()]
        assert not transport.aborted


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header(header: bytes) -> None:
    """Nothing of a connection without a proper header is read, and it is told nothing."""
    for pieces in ([header + GET], [*one_by_one(header + GET)]):
        scene = Scene()
        transport = scene.connect()
        for piece in pieces:
            if not transport.aborted:
                transport.deliver(piece)
        assert scene.peers == []
        assert transport.aborted
        assert transport.take() == b""


def test_a_header_that_does_not_come() -> None:
    """A silent connection is closed after ``client_header_timeout``, and so is one that dribbles."""
    for begun in (b"", b"PROXY TCP4 ", SIGNATURE):
        scene = Scene(Settings(client_header_timeout=5))
        transport = scene.connect()
        if begun:
            transport.deliver(begun)
        scene.server.wait(4)
        assert not transport.aborted
        scene.server.wait(2)
        assert transport.aborted
        scene.server.wait(1)
        assert not scene.server.factory.channels


def test_it_counts_as_a_connection() -> None:
    """Connections without a header have no more places than others, and keep theirs when it comes."""
    scene = Scene(Settings(max_connections=1))
    transport = scene.connect()
    assert scene.factory.buildProtocol(PEER) is None
    transport.deliver(b"PROXY TCP4 203.0.113.7 10.0.0.1 1 80\r\n" + GET)
    assert scene.peers == [b"203.0.113.7"]
    assert len(scene.server.factory.channels) == 1


@given(st.one_of(st.binary(max_size=60), st.sampled_from([each for each, _ in GOOD] + BAD)), st.binary(max_size=20))
def test_anything(data: bytes, more: bytes) -> None:
    """A header, none yet, or malformed: nothing else comes of any bytes, and more of them change no decision."""
    try:
        header = parse(data)
    except Malformed:
        with pytest.raises(Malformed):
            parse(data + more)
        return
    if header is not None:
        assert parse(data + more) == header
        assert header.size <= len(data)
    else:
        assert len(data) < 16 + MOST_OF_BLOCK
