"""Whatever a client sends: what reaches a service is canonical, and never more than a strict reader finds in it.

``--hypothesis-profile=hunt`` looks for many times longer.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.client import Client
from support.daemon import Daemon, gateway
from support.oracle import TCHAR, VCHAR, Message, Recorder, Seen, read_all

from .conftest import Start

Field = tuple[bytes, bytes]
many = settings(max_examples=4 * settings.default.max_examples)  # type: ignore[union-attr]
PATIENCE = 15.0
CPU_LIMIT = 1.0
"""Seconds of the gateway's time, which others wait for, that one client may cost."""


class Arena:
    """A daemon in front of the recorder, and clients of it, one after the other."""

    def __init__(self, daemon: Daemon, recorder: Recorder) -> None:
        self.daemon = daemon
        self.recorder = recorder
        self._admin = Client(daemon.admin)

    def close(self) -> None:
        self._admin.close()

    def attempt(self, raw: bytes) -> Seen:
        """What reaches the service when a client sends this, and then leaves. The next client is answered."""
        before = self._cpu()
        client = socket.create_connection(self.daemon.address, PATIENCE)
        client.setblocking(False)
        with client, suppress(ConnectionError):
            self._converse(client, raw)
        while self._in_flight():
            pass
        assert self.daemon.get("/sentinel").body == b"ok"
        assert self._cpu() - before < CPU_LIMIT
        seen = self.recorder.take()
        seen.complete = [message for message in seen.complete if message.target != b"/sentinel"]
        return seen

    def _converse(self, client: socket.socket, raw: bytes) -> None:
        """Send, and stay until nothing happens any more."""
        state: tuple[int, int, int] | None = None
        unchanged = received = 0
        while unchanged < 3:
            with suppress(BlockingIOError):
                raw = raw[client.send(raw) :]
            in_flight = self._in_flight()
            with suppress(BlockingIOError):
                data = client.recv(2**20)
                if not data:
                    return
                received += len(data)
            before, state = state, (len(raw), in_flight, received)
            unchanged = unchanged + 1 if before == state else 0

    def _in_flight(self) -> int:
        # Each answer takes at least a turn of the gateway's reactor, so that what was sent before is read by then.
        count: int = self._admin.get("/status").json["in_flight"]
        return count

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def arena(in_front: Start) -> Iterator[Arena]:
    recorder = Recorder()
    url = f"http://127.0.0.1:{recorder.port}"
    daemon = in_front(gateway(services={"oracle": url}, routes=[{"path": "/*", "service": "oracle"}]))
    arena = Arena(daemon, recorder)
    yield arena
    arena.close()
    daemon.kill()
    recorder.close()


def check(seen: Seen, complete: list[Message], begun: list[Message], in_order: bool) -> None:
    """Nothing arrived that is not among these."""
    assert seen.faults == []
    left = [message.asks for message in complete]
    for message in seen.complete:
        assert message.asks in left, f"{message} was never sent"
        if in_order:
            del left[: left.index(message.asks) + 1]
        else:
            left.remove(message.asks)
    for message in seen.begun:
        assert any(
            (message.method, message.target) == (sent.method, sent.target) and sent.body.startswith(message.body)
            for sent in (*complete, *begun)
        ), f"{message} was never begun"


def check_http1(arena: Arena, raw: bytes) -> None:
    seen = arena.attempt(raw)
    complete, begun = read_all(raw)
    check(seen, complete, [begun] if begun else [], in_order=True)


# HTTP/1.1: requests, honest and not.

METHODS = [b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"QUERY"]
ODD_METHODS = [b"BREW", b"CONNECT", b"get", b"G\xffT", b""]
TARGETS = [b"/", b"/a", b"/a/b?c=d", b"/a%20b", b"http://a/x", b"http://a?x", b"/.a/b..", b"/?//..#"[:-1]]
ODD_TARGETS = [
    b"/..;/a",
    b"/a//b",
    b"/%2e%2E/a",
    b"/./a",
    b"/a%2fb",
    b"*",
    b"/a#b",
    b"/health",
    b"http://b/",
    b"/a b",
    b"a",
]
FIELDS = (
    b"Accept: */*|Connection: keep-alive|Connection: X-A, Host, Content-Length|X-A: b|X-User-ID: root|x_user_id: root"
    b"|X.User.Roles: admin|X-Auth-Provider: me|X-Forwarded-For: 10.0.0.1|X-Forwarded-Proto: https"
    b"|X_Forwarded_For: 10.0.0.1|Forwarded: for=10.0.0.1|X-Real-IP: 10.0.0.1|X-Request-ID: abc|X-Request-ID: \xff"
    b"|Expect: 100-continue|TE: trailers|Trailer: X-A|Keep-Alive: timeout=5|Proxy-Connection: close|Via: 1.0 other"
    b"|Upgrade: h2c|HTTP2-Settings: AA|Authorization: Basic eDp5|Cookie: a=b|Cookie: c=d|X-B: \xe4\t c |Connection: te"
).split(b"|")
ODD_FIELDS = (
    b"Host: a|Host: b|Host:|Content-Length: 5|Content-Length: 0|Content-Length: +5|Content-Length:|Content-Length : 5"
    b"|Transfer-Encoding: chunked|Transfer-Encoding: gzip, chunked|Transfer-Encoding: identity|a:\0"
    b"|Transfer-Encoding:\x0bchunked|Connection: close| folded|no colon|:|X-A: b\rX-B: c|X-A: b\nX-B: c"
    b"|Transfer-Encoding : chunked"
).split(b"|")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
BODIES = [b"hello", b"\r\n\r\n", b"0\r\n\r\n", SMUGGLED, b"x" * 300]
PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\xff",
    b";",
    b",",
    b"0",
    *(b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b" HTTP/1.1", b"HTTP/1.0\r\n", b"X-User-ID: root\r\n", b" folded\r\n", SMUGGLED),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, nearly always honest."""
    odd = draw(st.integers(0, 19))
    method = draw(st.sampled_from(ODD_METHODS if odd == 0 else METHODS))
    target = draw(st.sampled_from(ODD_TARGETS if odd in (1, 2) else TARGETS))
    fields = [b"Host: a", *draw(st.lists(st.sampled_from(FIELDS), max_size=4))]
    if odd in (3, 4, 5, 6):
        fields.append(draw(st.sampled_from(ODD_FIELDS)))
    body = b""
    kind = draw(st.sampled_from(["none", "length", "chunked", "websocket"]))
    if kind == "length":
        body = draw(st.sampled_from(BODIES))
        fields.append(b"Content-Length: %d" % len(body))
    elif kind == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        for chunk in draw(st.lists(st.sampled_from(BODIES), max_size=3)):
            body += b"%x%b\r\n%b\r\n" % (len(chunk), draw(st.sampled_from([b"", b";a=b"])), chunk)
        body += draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX-User-ID: root\r\n\r\n"]))
    elif kind == "websocket":
        fields += [b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"]
    version = draw(st.sampled_from([b"1.0", b"2.0", b"1.2", b"0.9"])) if odd == 7 else b"1.1"
    return b"\r\n".join((b"%b %b HTTP/%b" % (method, target, version), *draw(st.permutations(fields)), b"", body))


Change = Callable[[bytes], bytes]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Something that goes wrong on the way."""
    place, size = draw(st.integers(0, 600)), draw(st.integers(1, 8))
    piece = draw(st.sampled_from(PIECES))
    bit = draw(st.integers(0, 7))
    kind = draw(
        st.sampled_from(["insert", "insert", "overwrite", "delete", "flip", "repeat", "swap", "cut", "line", "break"])
    )

    def change(data: bytes) -> bytes:
        at = place % (len(data) + 1)
        lines = data.split(b"\r\n")
        line = place % len(lines)
        match kind:
            case "insert":
                return data[:at] + piece + data[at:]
            case "overwrite":
                return data[:at] + piece + data[at + len(piece) :]
            case "delete":
                return data[:at] + data[at + size :]
            case "flip":
                return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]
            case "repeat":
                return b"\r\n".join((*lines[:line], lines[line], *lines[line:]))
            case "swap":
                return data.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX-Length: ", 1)
            case "cut":
                return data[:at]
            case "line":
                return b"\r\n".join((*lines[:line], piece.rstrip(b"\r\n"), *lines[line:]))
            case _:
                return b"\r\n".join(lines[:line]) + piece + b"\r\n".join(lines[line:])

    return change


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for change in draw(st.lists(changes(), max_size=3)):
        data = change(data)
    return data


@many
@given(raw=st.lists(requests(), min_size=1, max_size=4).map(b"".join))
def test_requests(arena: Arena, raw: bytes) -> None:
    """Honest requests, and some that are not quite, one behind the other."""
    check_http1(arena, raw)


@many
@given(raw=mutated())
def test_mutated_requests(arena: Arena, raw: bytes) -> None:
    """Requests with bytes changed, moved, doubled and lost."""
    check_http1(arena, raw)


@given(
    raw=st.one_of(
        st.binary(max_size=300),
        st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(FIELDS), st.binary(max_size=5)), max_size=30).map(
            b"".join
        ),
        st.binary(max_size=50).map(lambda junk: b"GET /a HTTP/1.1\r\nHost: a\r\n" + junk),
        st.binary(max_size=50).map(
            lambda junk: b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + junk
        ),
    )
)
def test_junk(arena: Arena, raw: bytes) -> None:
    """Bytes that were never meant to be a request."""
    check_http1(arena, raw)


def test_the_oracle_sees_what_arrives(arena: Arena) -> None:
    """Otherwise it would find no fault with anything."""
    honest = (
        b"POST /a?b HTTP/1.1\r\nHost: a\r\nX-User-ID: root\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    seen = arena.attempt(honest + SMUGGLED + honest[:-5])
    assert [message.asks for message in seen.complete] == [(b"POST", b"/a?b", b"hello"), (b"GET", b"/smuggled", b"")]
    assert [(message.asks, message.complete) for message in seen.begun] == [((b"POST", b"/a?b", b"hello"), False)]
    assert seen.faults == []


# HTTP/2.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
CONNECTION_SPECIFIC = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """RFC 9113 §4.1."""
    at = 0
    while len(data) - at >= 9:
        size = int.from_bytes(data[at : at + 3], "big")
        payload = data[at + 9 : at + 9 + size]
        if len(payload) < size:
            return
        yield data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF, payload
        at += 9 + size


def read_all_http2(raw: bytes) -> tuple[list[Message], list[Message]]:
    """The complete requests, and those that were only begun: at most what a strict reader finds."""
    messages: dict[int, Message] = {}
    block: bytes | None = None
    begun_block = (0, 0)
    decoder = Decoder(2**20)
    highest = 0
    for kind, flags, stream, payload in frames(raw.removeprefix(PREFACE) if raw.startswith(PREFACE) else b""):
        if kind in (DATA, HEADERS) and flags & PADDED:
            if not payload or payload[0] >= len(payload):
                break
            payload = payload[1 : len(payload) - payload[0]]
        if kind == HEADERS:
            block, begun_block = payload[5:] if flags & PRIORITY else payload, (stream, flags)
        elif kind == CONTINUATION and block is not None:
            block += payload
        elif kind == DATA and stream in messages:
            known = messages[stream]
            ended = bool(flags & END_STREAM)
            messages[stream] = Message(
                *known.asks[:2], b"2", known.fields, known.body + payload, known.complete or ended
            )
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS and block is not None:
            number, first_flags = begun_block
            try:
                fields = tuple((bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True))
            except (HPACKError, UnicodeError):
                break
            block = None
            if number in messages:
                known = messages[number]
                messages[number] = Message(*known.asks[:2], b"2", known.fields, known.body, True)
            elif not number % 2:
                break
            elif number > highest:
                highest = number
                message = request_of(fields, bool(first_flags & END_STREAM))
                if message is not None:
                    messages[number] = message
    found = list(messages.values())
    complete = [message for message in found if message.complete and has_its_length(message)]
    return complete, found


def has_its_length(message: Message) -> bool:
    return all(value.isdigit() and int(value) == len(message.body) for value in message.values(b"content-length"))


def request_of(fields: tuple[Field, ...], ended: bool) -> Message | None:
    """RFC 9113 §8: the request that these fields are, or None."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    names = [name for name, _ in fields]
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    hosts = [value for name, value in fields if name in (b":authority", b"host")]
    if (
        names[: len(pseudo)] != list(pseudo)
        or not {b":method", b":path", b":scheme"} <= set(pseudo) <= {b":method", b":path", b":scheme", b":authority"}
        or not method
        or not set(method) <= TCHAR
        or not path.startswith(b"/")
        or not set(path) <= VCHAR - {ord("#")}
        or not hosts
        or len({host.lower() for host in hosts}) > 1
        or names.count(b"content-length") > 1
        or any(name in CONNECTION_SPECIFIC for name in names)
    ):
        return None
    for name, value in fields:
        plain = name.removeprefix(b":")
        if not plain or not set(plain) <= TCHAR or plain != plain.lower() or value != value.strip(b" \t"):
            return None
        if any((byte < 0x20 and byte != 9) or byte == 0x7F for byte in value):
            return None
    return Message(method, path, b"2", fields, b"", ended)


NAMES = (
    b"accept x-a cookie content-length host te connection upgrade transfer-encoding x-user-id x_user_id expect"
    b" x-forwarded-for :path :method :scheme :authority :status :protocol X-Upper via x-request-id forwarded"
).split()
VALUES = [
    b"",
    b"a",
    b"b c",
    b"5",
    b"0",
    b"+5",
    b"trailers",
    b"chunked",
    b"100-continue",
    b" a",
    b"a ",
    b"a\r\nb: c",
    b"a\nb",
    b"a\0",
    b"\xff",
    b"/x",
    b"/x y",
    b"/x HTTP/1.1\r\nHost: b\r\n\r\n",
    b"GET /y",
    b"a\r\n\r\nGET /z HTTP/1.1\r\nHost: a\r\n\r\n",
    b"/../x",
]
BASE: list[Field] = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/a?b")]


@st.composite
def fields(draw: st.DrawFn) -> list[Field]:
    """Those of a request, with some too many, too few, or changed."""
    found = list(BASE)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2, 3]))):
        name, value = draw(st.sampled_from(NAMES)), draw(st.sampled_from(VALUES))
        place = draw(st.integers(0, 10)) % (len(found) + 1)
        match draw(st.sampled_from(["append", "append", "insert", "change", "remove"])):
            case "append":
                found.append((name, value))
            case "insert":
                found.insert(place, (name, value))
            case "change":
                found[place - 1 :] = [(found[place - 1][0], value), *found[place:]] if place else found[place - 1 :]
            case _:
                found = found[:place] + found[place + 1 :]
    return found


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """The frames of a connection."""
    encoder = Encoder()
    raw = frame(SETTINGS, 0, 0, b"")
    for number in range(1, 2 * draw(st.integers(1, 4)), 2):
        block = encoder.encode(draw(fields()), huffman=draw(st.booleans()))
        body = draw(st.lists(st.sampled_from([b"", b"hello", SMUGGLED]), max_size=2))
        end = 0 if body else END_STREAM
        if draw(st.booleans()):
            raw += frame(HEADERS, END_HEADERS | end, number, block)
        else:
            half = draw(st.integers(0, 40)) % (len(block) + 1)
            raw += frame(HEADERS, end, number, block[:half]) + frame(CONTINUATION, END_HEADERS, number, block[half:])
        for place, piece in enumerate(body, 1):
            flags = END_STREAM if place == len(body) and draw(st.booleans()) else 0
            raw += frame(DATA, flags, number, piece)
        if body and draw(st.integers(0, 3)) == 0:
            raw += frame(HEADERS, END_HEADERS | END_STREAM, number, encoder.encode([(b"x-user-id", b"root")]))
        if draw(st.integers(0, 9)) == 0:
            raw += frame(RST_STREAM, 0, number, b"\0\0\0\x08")
    return raw


def check_http2(arena: Arena, raw: bytes) -> None:
    seen = arena.attempt(raw)
    complete, begun = read_all_http2(raw)
    check(seen, complete, begun, in_order=False)


@many
@given(raw=streams())
def test_http2_requests(arena: Arena, raw: bytes) -> None:
    """Frames in order, around fields of all kinds."""
    check_http2(arena, PREFACE + raw)


@many
@given(raw=streams(), errors=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=3))
def test_mutated_http2_requests(arena: Arena, raw: bytes, errors: list[tuple[int, int]]) -> None:
    """Frames of which some bytes are others."""
    changed = bytearray(raw)
    for place, byte in errors:
        changed[place % len(changed)] = byte
    check_http2(arena, PREFACE + bytes(changed))


@given(
    raw=st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=30)), max_size=10
    )
)
def test_http2_junk(arena: Arena, raw: list[tuple[int, int, int, bytes]]) -> None:
    """Frames of all kinds that were never meant to be a request."""
    check_http2(arena, PREFACE + frame(SETTINGS, 0, 0, b"") + b"".join(frame(*each) for each in raw))


def test_a_length_is_no_end(arena: Arena) -> None:
    """A request that becomes longer than it said is not complete for a service, however slowly that shows."""
    head = PREFACE + frame(SETTINGS, 0, 0, b"")
    head += frame(HEADERS, END_HEADERS, 1, Encoder().encode([*BASE, (b"content-length", b"5")]))
    for pieces in ([b"hello"], [b"hell", b"o"], [b"hello", b"x"], [b"hello", b"", b"x"]):
        seen = arena.attempt(head + b"".join(frame(DATA, 0, 1, piece) for piece in pieces))
        assert seen.complete == []
    for pieces in ([b"hello", b""], [b"", b"hello"], [b"hell", b"o", b"", b""]):
        body = b"".join(frame(DATA, 0, 1, piece) for piece in pieces[:-1]) + frame(DATA, END_STREAM, 1, pieces[-1])
        assert [message.body for message in arena.attempt(head + body).complete] == [b"hello"]


def test_the_oracle_sees_what_arrives_by_http2(arena: Arena) -> None:
    """Otherwise it would find no fault with anything."""
    encoder = Encoder()
    raw = PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, encoder.encode(BASE))
    raw += (
        frame(DATA, END_STREAM, 1, b"hello")
        + frame(HEADERS, END_HEADERS, 3, encoder.encode(BASE))
        + frame(DATA, 0, 3, b"he")
    )
    seen = arena.attempt(raw)
    assert [message.asks for message in seen.complete] == [(b"POST", b"/a?b", b"hello")]
    assert [message.asks for message in seen.begun] == [(b"POST", b"/a?b", b"he")]
    assert seen.faults == []
    complete, begun = read_all_http2(raw)
    assert [message.asks for message in complete] == [(b"POST", b"/a?b", b"hello")]
    assert len(begun) == 2
