"""Headers of the PROXY protocol."""

from __future__ import annotations

from zlib import crc32

from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from wire.test_proxy_protocol import BAD, GET, GOOD

from apigw.wire.proxy_protocol import MOST_OF_BLOCK, Header, Malformed, parse
from fuzz.target import Target


def read(data: bytes) -> Header | str | None:
    try:
        return parse(data)
    except Malformed:
        return "malformed"


def check(data: bytes) -> None:
    """More bytes change no decision, a header is bounded, and what it names is an address that stands in it."""
    outcome = read(data)
    before = read(data[: crc32(data) % (len(data) + 1)])
    assert before in (outcome, None)
    if not isinstance(outcome, Header):
        assert outcome or len(data) < 16 + MOST_OF_BLOCK
        return
    assert outcome.size <= min(len(data), 16 + MOST_OF_BLOCK)
    source = outcome.source
    if source is None:
        return
    assert isinstance(source, IPv4Address | IPv6Address)
    assert 0 <= source.port <= 65535
    if data.startswith(b"PROXY "):
        _, family, _, _, port, _ = data[: outcome.size - 2].split(b" ")
        assert family == (b"TCP4" if isinstance(source, IPv4Address) else b"TCP6")
        assert int(port) == source.port


HEADERS = [*(header for header, _ in GOOD), *BAD]
TARGET = Target(
    "proxied",
    check,
    st.tuples(st.sampled_from(HEADERS), st.sampled_from([b"", GET, b"\0"])).map(b"".join),
    (*HEADERS, b" ", b"\r\n", b"\0", b"TCP4", b"::1", b"65536"),
    base=2_000,
    slope=20,
)
