"""What Redis, or whoever sits in its place, answers to commands."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import hiredis
from hypothesis import strategies as st
from support.fake_transport import FakeTransport
from support.http1_server import cut_at
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from apigw.redis.protocol import ConnectionFactory
from fuzz.target import Target

COMMANDS = 3


def replies(pieces: list[bytes]) -> tuple[list[Any], bool]:
    """What the commands come to, as far as it has come, and whether the connection was given up."""
    protocol: Any = ConnectionFactory().buildProtocol(None)
    transport = FakeTransport(Clock()).connect(protocol)
    found: list[Any] = []
    for _ in range(COMMANDS):
        protocol.execute_command("PING").addBoth(found.append)
    for piece in pieces:
        if not transport.aborted:
            transport.deliver(piece)
    return [type(each.value) if isinstance(each, Failure) else each for each in found], transport.aborted


def check(data: bytes) -> None:
    """Each command gets what hiredis reads in its place, in any pieces; what is no reply ends the connection."""
    found, aborted = replies([data])
    assert replies(cut_at(data, [crc32(data) % (len(data) + 1)]))[1] == aborted
    reader = hiredis.Reader()
    reader.feed(data)
    for each in found:
        try:
            strict = reader.gets()
        except hiredis.ProtocolError:
            return
        if aborted and isinstance(each, type):
            return
        if isinstance(each, type) and issubclass(each, Exception):
            assert isinstance(strict, Exception), (each, strict)
        else:
            assert plain(each) == plain(strict), (each, strict)


def plain(value: Any) -> Any:
    """Text as bytes, and errors without their class: the two differ in that."""
    if isinstance(value, Exception):
        return str(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return [(plain(key), plain(each)) for key, each in value.items()]
    return value.encode() if isinstance(value, str) else value


WORDS = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b":-9223372036854775808\r\n",
    b"$2\r\nhi\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
]
ODD = [
    b"*2\r\n",
    b"*1\r\n",
    b"$5\r\n",
    b"$99999999999\r\n",
    b"*99999999999\r\n",
    b":x\r\n",
    b":\r\n",
    b"$x\r\n",
    b"\r\n",
    b"\n",
    b"?",
    b"%1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"HTTP/1.1 400 Bad\r\n",
]
TARGET = Target(
    "replies",
    check,
    st.lists(st.sampled_from(WORDS * 3 + ODD), max_size=8).map(b"".join),
    (*WORDS, *ODD, b"*1\r\n" * 500, b"\r", b"-", b"0", b"\xff", b"x" * 1000),
    base=20_000,
    slope=60,
)
