"""The chunked coding of a request's body."""

from __future__ import annotations

from zlib import crc32

from hypothesis import strategies as st
from support.http1_server import cut_at
from support.oracle import Cursor, read_chunked

from apigw.wire.errors import Refused
from apigw.wire.http1.chunked import MAX_SIZE_LINE, ChunkedBody
from fuzz.target import Target

MOST = 4096
"""Of the trailers."""


def read(pieces: list[bytes]) -> tuple[bytes, bytes, bool, int]:
    """The body, what follows it, whether it is complete, and the status of what is refused, or 0."""
    chunked = ChunkedBody(MOST, 100)
    body = rest = b""
    for piece in pieces:
        if chunked.complete:
            rest += piece
            continue
        try:
            data, rest = chunked.feed(piece)
        except Refused as refused:
            assert refused.status in (400, 431)
            return body, b"", False, refused.status
        body += data
    return body, rest, chunked.complete, 0


def check(data: bytes) -> None:
    """A strict reader finds the same body, with the same end, in whatever pieces it comes."""
    body, rest, complete, status = read([data])
    places = [crc32(data) % (len(data) + 1), crc32(data[::-1]) % (len(data) + 1)]
    apart = read(cut_at(data, places))
    assert apart[2:] == (complete, status)
    if not status:
        assert apart == (body, rest, complete, status)
    cursor = Cursor(data)
    strict, whole = read_chunked(cursor)
    if complete:
        assert whole
        assert (body, rest) == (strict, cursor.rest())
    elif whole:
        # Only what is long is refused, and a size that no body has.
        assert status
        longest = max(map(len, data.split(b"\r\n")))
        assert longest > min(MAX_SIZE_LINE, MOST) or len(data) > MOST or longest > 15


SIZES = st.sampled_from(
    [b"0", b"1", b"5", b"a", b"0005", b"F", b"10", b"ffffffffffffffff", b"", b"0x5", b"+5", b" 5", b"5 "]
)
EXTENSIONS = st.sampled_from(
    [b"", b"", b";a", b";a=b", b';a="b\\"c"', b';a="\r\n"', b";", b" ;a", b";a=", b";" + b"x" * 1100]
)
ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\r\n", b""])
DATA = st.sampled_from([b"", b"x", b"hello", b"0123456789", b"\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 16])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    out = b""
    for _ in range(draw(st.integers(0, 4))):
        data = draw(DATA)
        size = draw(SIZES) if not draw(st.integers(0, 5)) else b"%x" % len(data)
        out += size + draw(EXTENSIONS) + draw(ENDS) + data + draw(ENDS)
    trailers = draw(
        st.lists(st.sampled_from([b"a: b", b"A:", b"Content-Length: 5", b" c", b"d", b"e : f", b"g: \0"]), max_size=2)
    )
    out += b"0" + draw(EXTENSIONS) + draw(ENDS) + b"".join(trailer + draw(ENDS) for trailer in trailers) + draw(ENDS)
    return out + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n"]))


PIECES = (
    b"\r\n",
    b"\r",
    b"\n",
    b"0",
    b"5",
    b"f",
    b";",
    b"=",
    b'"',
    b"\\",
    b" ",
    b"\t",
    b"0\r\n\r\n",
    b"a: b\r\n",
    b"\0",
    b"\xff",
    b"x" * 1024,
)
TARGET = Target("bodies", check, bodies(), PIECES, base=5_000, slope=200)
