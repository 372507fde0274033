"""What a service answers."""

from __future__ import annotations

from zlib import crc32

from hypothesis import strategies as st
from support.http1_server import cut_at
from support.oracle import DIGIT, OBS_TEXT, VCHAR, WHITE, Cursor, Malformed, read_chunked, read_fields
from support.upstream import exchange

from fuzz.target import Target

ENDS = {"", "finished", "UpstreamMalformed", "UpstreamLost"}
OF_THE_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings".split()
)


def check(data: bytes) -> None:
    """What is relayed, a strict reader reads in the same way, in any pieces, whether or not the service closes."""
    for close in (False, True):
        outcome = exchange([data], close=close)
        places = [crc32(data) % (len(data) + 1), crc32(data[::-1]) % (len(data) + 1)]
        apart = exchange(cut_at(data, places), close=close)
        assert outcome.end in ENDS
        assert apart.end == outcome.end
        if outcome.end != "finished":
            continue
        assert (apart.status, apart.headers, apart.body) == (outcome.status, outcome.headers, outcome.body)
        status, fields, body, at = read_answer(data)
        assert (outcome.status, outcome.body) == (status, body)
        left = {(name.lower(), value) for name, value in fields if name.lower() not in OF_THE_HOP}
        lengths = {name for name, _ in left} & {b"content-length"}
        assert {pair for pair in outcome.headers if pair[0] not in lengths | {b"upgrade", b"connection"}} <= left
        # Line breaks before the next answer are skipped, as many servers send one too many.
        assert not outcome.reusable or not data[at:].strip(b"\r\n")


def read_answer(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, int]:
    """RFC 9112 §4 to §7: status, fields, body, and where it ends. Raises ``Malformed`` and ``EOFError``."""
    cursor = Cursor(data)
    while True:
        cursor.literal(b"HTTP/1.")
        minor = cursor.one_of(DIGIT)
        cursor.literal(b" ")
        status = int(bytes(cursor.one_of(DIGIT) for _ in range(3)))
        if cursor.peek() == ord(" "):
            cursor.literal(b" ")
            cursor.some(VCHAR | OBS_TEXT | WHITE)
        cursor.literal(b"\r\n")
        fields = list(read_fields(cursor))
        if status >= 200:
            break
    if status > 599:
        raise Malformed("a status of no class")
    names = [name.lower() for name, _ in fields]
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) > 1 or (lengths and codings) or names.count(b"transfer-encoding") > 1:
        raise Malformed("two framings")
    if status in (204, 304):
        return status, fields, b"", cursor.at
    if codings:
        if codings != [b"chunked"] or minor == ord("0"):
            raise Malformed("a coding that is not chunked")
        body, complete = read_chunked(cursor)
        if not complete:
            raise Malformed("chunks that do not end")
    elif lengths:
        if not lengths[0] or not set(lengths[0]) <= DIGIT:
            raise Malformed("a length that is none")
        body = cursor.exactly(int(lengths[0]))
    else:
        body = cursor.exactly(len(data) - cursor.at)
    return status, fields, body, cursor.at


LINES = [b"HTTP/1.1 200 OK"] * 4 + [
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 ",
    b"HTTP/1.1 304",
    b"HTTP/1.1 599 x",
    b"HTTP/1.1 600 x",
    b"HTTP/1.1 100 Continue",
    b"HTTP/2 200",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 101 S",
    b"HTTP/1.2 200 OK",
    b"ICY 200 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 426 x",
]
FIELDS = [
    b"Content-Length: 5",
    b"Content-Length: 005",
    b"Content-Length: 6",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Connection: close",
    b"Connection: keep-alive, x-a",
    b"X-A: b",
    b"Proxy-Connection: close",
    b"Upgrade: websocket",
    b" folded",
    b"X : y",
    b"X: a\rb",
    b"X: a\nb",
    b"X:\0",
    b"Set-Cookie: a",
    b": x",
]
BODIES = [
    b"hello",
    b"",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n0\r\na: b\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"helloHTTP/1.1 200 OK\r\n\r\n",
    b"5\nhello\n0\n\n",
]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    out = b""
    for _ in range(draw(st.integers(1, 2))):
        lines = [draw(st.sampled_from(LINES)), *draw(st.lists(st.sampled_from(FIELDS), max_size=4))]
        out += b"\r\n".join((*lines, b"", draw(st.sampled_from(BODIES))))
    return out


PIECES = (
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n" * 33,
    *LINES,
    *FIELDS,
    *BODIES,
)
TARGET = Target("answers", check, answers(), PIECES, base=40_000, slope=300)
