"""Field blocks of one HTTP/2 connection (RFC 7541), each with its length in two bytes in front."""

from __future__ import annotations

from collections.abc import Iterator

from hpack import Decoder, Encoder, HPACKError
from hypothesis import strategies as st

from apigw.wire.headers import Headers
from apigw.wire.http2.field import CONNECTION_SPECIFIC
from apigw.wire.http2.frames import ConnectionFault
from apigw.wire.http2.hpack import FieldDecoder, encode_head
from fuzz.target import Target

PLENTY = 1 << 30
LIMIT = 200
"""Bytes of fields that a third reader keeps."""


def blocks(data: bytes) -> Iterator[bytes]:
    while data:
        length = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + length]
        data = data[2 + length :]


def check(data: bytes) -> None:
    """What is decoded, the ``hpack`` library decodes to the same fields and table. A limit only keeps less."""
    ours, limited = FieldDecoder(), FieldDecoder()
    theirs = Decoder(max_header_list_size=PLENTY)
    for block in blocks(data):
        try:
            fields, size = ours.decode(block, PLENTY)
        except ConnectionFault:
            try:
                theirs.decode(block, raw=True)
            except HPACKError:
                return
            assert is_odd(block)
            return
        pairs = [field.pair for field in fields]
        assert [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)] == pairs
        assert [tuple(map(bytes, entry)) for entry in theirs.header_table.dynamic_entries] == ours.table
        kept, same_size = limited.decode(block, LIMIT)
        assert same_size == size == sum(len(name) + len(value) + 4 for name, value in pairs)
        assert limited.table == ours.table
        assert [field.pair for field in kept] == pairs[: len(kept)]
        assert sum(field.size for field in kept[:-1]) <= LIMIT
        check_sent(pairs)


def is_odd(block: bytes) -> bool:
    """What is refused here alone: integers of more than five bytes, and table size updates behind a field."""
    return any(all(byte >= 0x80 for byte in block[at : at + 4]) for at in range(len(block) - 3)) or any(
        byte & 0xE0 == 0x20 for byte in block[1:]
    )


def check_sent(fields: Headers) -> None:
    expected = [(name.lower(), value) for name, value in fields if name.lower() not in CONNECTION_SPECIFIC]
    sent = Decoder(max_header_list_size=PLENTY).decode(encode_head(200, fields), raw=True)
    assert sent == [(b":status", b"200"), *expected]


def framed(*several: bytes) -> bytes:
    return b"".join(len(block).to_bytes(2, "big") + block for block in several)


NAMES = st.sampled_from([b":path", b"cookie", b"x-a", b"connection", b"X-B", b"", b"a" * 200]) | st.binary(max_size=8)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=40), st.booleans()), max_size=6)


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    encoder = Encoder()
    made = []
    for _ in range(draw(st.integers(1, 4))):
        encoder.header_table_size = draw(st.sampled_from([4096, 4096, 100, 0]))
        made.append(encoder.encode(draw(FIELDS), huffman=draw(st.booleans())))
    return framed(*made)


PIECES = (
    b"\x82",
    b"\xbe",
    b"\xff\x00",
    b"\xff\x80\x80\x80\x80\x01",
    b"\x20",
    b"\x3f\xe1\x1f",
    b"\x3f\xe2\x1f",
    b"\x40\x01a\x01b",
    b"\x00\x81\x1f\x81\x1f",
    b"\x00\x84\xff\xff\xff\xff\x00",
    b"\x7f\x00",
    b"\x00\x05",
    b"\xff\xff",
    framed(b"\x82\x86\x84"),
    framed(b"\x40\x01a\x7f\x81\x1f" + b"b" * 4096),
)
TARGET = Target("blocks", check, encoded(), PIECES, base=40_000, slope=400, room=400)
