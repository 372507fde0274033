"""HTTP/1.1 towards upstreams: an honest answer is relayed, a lie is not believed, whatever the pieces it comes in."""

from __future__ import annotations

import re

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from support.http1_server import cut_at, one_by_one
from support.upstream import HEAD_OF_GET, TIMEOUT, Outcome, Recorder, Upstream, exchange, send
from twisted.internet.error import ConnectionLost

from apigw.wire.errors import UpstreamLost
from apigw.wire.headers import HOP_BY_HOP, Headers
from apigw.wire.http1.client import CLOSING_TIME
from apigw.wire.http1.write_head import _beginnings, request_head
from apigw.wire.interfaces import MAX_HEAD, MAX_HEADERS, MAX_INTERIM

GET, HEAD = b"GET", b"HEAD"


@frozen
class Case:
    name: str
    raw: bytes
    status: int = 0
    body: bytes = b""
    end: str = "UpstreamMalformed"
    reusable: bool = False
    method: bytes = GET
    close: bool = False
    """Whether the upstream closes the connection behind it."""


def response(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join((line, *fields, b"", b"")) + body


def length(body: bytes, *fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return response(b"Content-Length: %d" % len(body), *fields, line=line, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    return response(b"Transfer-Encoding: chunked", *fields, body=body)


def ok(name: str, raw: bytes, body: bytes = b"", status: int = 200, reusable: bool = True, method: bytes = GET) -> Case:
    return Case(name, raw, status, body, "finished", reusable, method)


def to_the_end(name: str, raw: bytes, body: bytes) -> Case:
    """A body that ends with the connection."""
    return Case(name, raw, 200, body, "finished", close=True)


def lie(name: str, raw: bytes) -> Case:
    """Nothing of it is relayed."""
    return Case(name, raw)


def halfway(name: str, raw: bytes, body: bytes = b"", close: bool = False) -> Case:
    """The answer had begun when it turned out to be none."""
    return Case(name, raw, 200, body, "UpstreamLost" if close else "UpstreamMalformed", close=close)


def lost(name: str, raw: bytes) -> Case:
    return Case(name, raw, end="UpstreamLost", close=True)


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
NEXT = length(b"other")

CASES = [
    # Honest.
    ok("a length", length(b"hello"), b"hello"),
    ok("a length of zero", length(b"")),
    ok("chunked", chunked(CHUNKS), b"hello"),
    ok("chunked in capitals", response(b"TRANSFER-ENCODING: CHUNKED", body=CHUNKS), b"hello"),
    ok("chunk extensions", chunked(b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), b"hello"),
    ok("trailers", chunked(b"5\r\nhello\r\n0\r\nX-User-ID: root\r\nSet-Cookie: a\r\n\r\n"), b"hello"),
    halfway("a length in a trailer", chunked(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"), b"hello"),
    ok("no reason", length(b"hello", line=b"HTTP/1.1 200 "), b"hello"),
    ok("no reason and no space", length(b"hello", line=b"HTTP/1.1 200"), b"hello"),
    ok("a reason that is not ASCII", length(b"hello", line=b"HTTP/1.1 200 F\xfcr"), b"hello"),
    ok("an unknown status", length(b"hello", line=b"HTTP/1.1 599 Odd"), b"hello", 599),
    ok("204", response(line=b"HTTP/1.1 204 No Content"), status=204),
    ok("304", response(line=b"HTTP/1.1 304 Not Modified"), status=304),
    ok("204 with a length of zero", response(b"Content-Length: 0", line=b"HTTP/1.1 204 No Content"), status=204),
    ok("204 with a length", response(b"Content-Length: 5", line=b"HTTP/1.1 204 No Content"), status=204, reusable=False),  # noqa: E501
    ok("204 with a length, unusual", response(b"Content-Length: 5", b"A:", line=b"HTTP/1.1 204 No"), status=204, reusable=False),  # noqa: E501
    ok("204, chunked", response(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 204 No Content"), status=204, reusable=False),  # noqa: E501
    ok("304 with a length", response(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"), status=304),
    ok("HEAD", response(), method=HEAD),
    ok("HEAD with a length", response(b"Content-Length: 5"), method=HEAD),
    ok("HEAD, chunked", response(b"Transfer-Encoding: chunked"), method=HEAD),
    ok("keep-alive", length(b"hello", b"Connection: keep-alive", b"Keep-Alive: timeout=5"), b"hello"),
    ok("one that closes", length(b"hello", b"Connection: close"), b"hello", reusable=False),
    ok("one that closes, in a list", length(b"hello", b"Connection: Foo, Close"), b"hello", reusable=False),
    ok("1.0", length(b"hello", line=b"HTTP/1.0 200 OK"), b"hello", reusable=False),
    ok("1.0 with keep-alive", length(b"hello", b"Connection: keep-alive", line=b"HTTP/1.0 200 OK"), b"hello", reusable=False),  # noqa: E501
    to_the_end("no length", response(body=b"hello"), b"hello"),
    to_the_end("no length, no body", response(), b""),
    to_the_end("no length in 1.0", response(line=b"HTTP/1.0 200 OK", body=b"hello"), b"hello"),
    ok("100", response(line=b"HTTP/1.1 100 Continue") + length(b"hello"), b"hello"),
    ok("100 and 103", response(line=b"HTTP/1.1 100 ") + response(b"Link: a", line=b"HTTP/1.1 103 E") + length(b"hello"), b"hello"),  # noqa: E501
    ok("102 with a length", response(b"Content-Length: 5", line=b"HTTP/1.1 102 P") + length(b"hello"), b"hello"),
    ok("103, chunked", response(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 103 E") + length(b"hello"), b"hello"),
    ok("103 that closes", response(b"Connection: x, close", line=b"HTTP/1.1 103 E") + length(b"hello"), b"hello"),
    ok("100 before HEAD", response(line=b"HTTP/1.1 100 C") + response(b"Content-Length: 5"), method=HEAD),
    ok("as many interim responses as may be", response(line=b"HTTP/1.1 100 C") * MAX_INTERIM + length(b"hello"), b"hello"),  # noqa: E501
    ok("an upgrade offered", length(b"hello", b"Upgrade: h2c", b"Connection: upgrade"), b"hello"),
    # Bytes behind the answer belong to nobody.
    ok("a second answer", length(b"hello") + NEXT, b"hello", reusable=False),
    ok("a second answer behind chunks", chunked(CHUNKS) + NEXT, b"hello", reusable=False),
    ok("a second answer behind HEAD", response(b"Content-Length: 5") + NEXT, method=HEAD, reusable=False),
    ok("a body behind HEAD", length(b"hello"), method=HEAD, reusable=False),
    ok("a body behind 204", length(b"hello", line=b"HTTP/1.1 204 No Content"), status=204, reusable=False),
    ok("a body behind 304", length(b"hello", line=b"HTTP/1.1 304 No"), status=304, reusable=False),
    ok("a longer body than announced", response(b"Content-Length: 3", body=b"hello"), b"hel", reusable=False),
    ok("a longer body that begins like an answer", response(b"Content-Length: 3", body=b"hel" + b"H"), b"hel", reusable=False),  # noqa: E501
    ok("junk behind chunks", chunked(CHUNKS + b"\0"), b"hello", reusable=False),
    ok("an interim answer behind", length(b"hello") + response(line=b"HTTP/1.1 100 C"), b"hello", reusable=False),
    # Framing.
    lie("a length and chunked", response(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=CHUNKS)),
    lie("chunked and a length", chunked(CHUNKS, b"Content-Length: 5")),
    lie("two lengths", response(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!")),
    lie("the same length twice", response(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    lie("a list of lengths", response(b"Content-Length: 5, 5", body=b"hello")),
    lie("an empty length", response(b"Content-Length:", body=b"hello")),
    lie("a negative length", response(b"Content-Length: -5", body=b"hello")),
    lie("a signed length", response(b"Content-Length: +5", body=b"hello")),
    lie("a hexadecimal length", response(b"Content-Length: 0x5", body=b"hello")),
    lie("a length beyond 64 bits", response(b"Content-Length: 18446744073709551616")),
    lie("gzip, chunked", response(b"Transfer-Encoding: gzip, chunked", body=CHUNKS)),
    lie("gzip", response(b"Transfer-Encoding: gzip", body=b"hello")),
    lie("identity", response(b"Transfer-Encoding: identity", body=b"hello")),
    lie("an empty coding", response(b"Transfer-Encoding:", body=b"hello")),
    lie("xchunked", response(b"Transfer-Encoding: xchunked", body=CHUNKS)),
    lie("chunked twice", response(b"Transfer-Encoding: chunked, chunked", body=CHUNKS)),
    lie("chunked in two fields", chunked(CHUNKS, b"Transfer-Encoding: chunked")),
    lie("chunked in 1.0", response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK", body=CHUNKS)),
    lie("two lengths for HEAD", Case("", response(b"Content-Length: 5", b"Content-Length: 6")).raw),
    # The status line.
    lie("no status line", b"hello\r\n\r\n"),
    lie("HTML", b"<html>"),
    lie("HTTP/0.9", response(line=b"HTTP/0.9 200 OK")),
    ok("HTTP/1.2", length(b"hello", line=b"HTTP/1.2 200 OK"), b"hello"),
    lie("HTTP/1.12", response(line=b"HTTP/1.12 200 OK")),
    lie("HTTP/2", response(line=b"HTTP/2 200 OK")),
    lie("HTTP/2's preface", b"\0\0\x12\x04\0\0\0\0\0"),
    lie("RTSP", response(line=b"RTSP/1.0 200 OK")),
    lie("ICY", response(line=b"ICY 200 OK")),
    lie("http in lower case", response(line=b"http/1.1 200 OK")),
    lie("a request", HEAD_OF_GET),
    lie("a status of no class", length(b"hello", line=b"HTTP/1.1 600 Odd")),
    lie("the last status of three digits", length(b"hello", line=b"HTTP/1.1 999 Odd")),
    lie("a status of two digits", response(line=b"HTTP/1.1 20 OK")),
    lie("a status of four digits", response(line=b"HTTP/1.1 2000 OK")),
    lie("a status in words", response(line=b"HTTP/1.1 OK")),
    lie("a status below 100", response(line=b"HTTP/1.1 099 OK")),
    lie("a status of zero", response(line=b"HTTP/1.1 000 OK")),
    lie("a control character in the reason", length(b"", line=b"HTTP/1.1 200 O\x01K")),
    lie("NUL in the reason", length(b"", line=b"HTTP/1.1 200 O\0K")),
    lie("an escape sequence in the reason", length(b"", line=b"HTTP/1.1 200 \x1b[2J")),
    lie("DEL in the reason", length(b"", line=b"HTTP/1.1 200 O\x7f")),
    lie("CR in the reason", length(b"", line=b"HTTP/1.1 200 O\rK")),
    lie("LF in the reason", length(b"", line=b"HTTP/1.1 200 O\nK: x")),
    lie("an empty line first", b"\r\n" + length(b"hello")),
    lie("a space first", b" " + length(b"hello")),
    # Fields.
    lie("bare LFs", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    lie("a bare LF between fields", response(b"a: b\nc: d", b"Content-Length: 0")),
    lie("a bare CR between fields", response(b"a: b\rc: d", b"Content-Length: 0")),
    lie("a bare CR in a value", response(b"Location: /\rSet-Cookie: a=b", b"Content-Length: 0")),
    lie("a folded line", response(b"a: b", b" c", b"Content-Length: 0")),
    lie("white space before a colon", response(b"a : b", b"Content-Length: 0")),
    lie("white space before the colon of a length", response(b"Content-Length : 5", body=b"hello")),
    lie("a field without colon", response(b"a", b"Content-Length: 0")),
    lie("a field without name", response(b": a", b"Content-Length: 0")),
    lie("a name with a space", response(b"a b: c", b"Content-Length: 0")),
    lie("NUL in a value", response(b"a: \0", b"Content-Length: 0")),
    lie("a control character in a value", response(b"a: \x1b", b"Content-Length: 0")),
    lie("DEL in a value", response(b"a: \x7f", b"Content-Length: 0")),
    # Interim.
    lie("101 that nobody asked for", response(b"Upgrade: websocket", b"Connection: upgrade", line=b"HTTP/1.1 101 S")),
    lie("one interim response too many", response(line=b"HTTP/1.1 100 C") * (MAX_INTERIM + 1) + length(b"hello")),
    lie("interim responses without end", response(line=b"HTTP/1.1 100 C") * 3000),
    lie("a body behind 100", length(b"hello", line=b"HTTP/1.1 100 C") + length(b"hello")),
    # Bodies.
    halfway("no chunk size", chunked(b"\r\nhello")),
    halfway("a chunk size in words", chunked(b"five\r\nhello")),
    halfway("a negative chunk size", chunked(b"-5\r\nhello")),
    halfway("a chunk size beyond 64 bits", chunked(b"10000000000000000\r\nhello")),
    halfway("a chunk that is too long", chunked(b"5\r\nhello!\r\n0\r\n\r\n"), b"hello"),
    halfway("bare LFs in chunks", chunked(b"5\nhello\n0\n\n")),
    halfway("a trailer that is none", chunked(b"5\r\nhello\r\n0\r\nnone\r\n\r\n"), b"hello"),
    halfway("a short body", response(b"Content-Length: 6", body=b"hello"), b"hello", close=True),
    halfway("no last chunk", chunked(b"5\r\nhello\r\n"), b"hello", close=True),
    halfway("half a chunk", chunked(b"6\r\nhello"), b"hello", close=True),
    halfway("no last line", chunked(b"5\r\nhello\r\n0\r\n"), b"hello", close=True),
    lost("nothing", b""),
    lost("half a status line", b"HTTP/1.1 2"),
    lost("half a head", b"HTTP/1.1 200 OK\r\nContent-"),
    lost("an interim response only", response(line=b"HTTP/1.1 100 Continue")),
]  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def run(case: Case, pieces: list[bytes]) -> Outcome:
    return exchange(pieces, method=case.method, close=case.close)


MALFORMED = "UpstreamMalformed"


def judged(outcome: Outcome) -> Outcome:
    """How much of a lie had been told when it turned out to be one depends on when it came."""
    return outcome if outcome.end != MALFORMED else Outcome(0, b"", (), b"", MALFORMED, outcome.reusable)


@every_case
def test_what_an_upstream_says(case: Case) -> None:
    """An honest answer goes on, a lie does not, what is odd is not used again; however it is cut in two."""
    outcome = run(case, [case.raw])
    told = (case.status, case.body) if case.end != MALFORMED else (0, b"")  # nothing of a lie that came at once
    assert (outcome.status, outcome.body, outcome.end) == (*told, case.end)
    assert outcome.reusable == case.reusable
    whole = judged(outcome)
    assert judged(run(case, one_by_one(case.raw))) == whole
    for place in range(1, min(len(case.raw), 250)):
        assert judged(run(case, cut_at(case.raw, [place]))) == whole, place


@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([length(b"hello"), chunked(CHUNKS), response(line=b"HTTP/1.1 100 C"), response(), CHUNKS]),
            st.sampled_from(
                [b"\r\n", b"\n", b"\r", b"\0", b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\n", b" ", b":"]
            ),
        ),
        max_size=8,
    ),
    places=st.lists(st.integers(1, 300), max_size=8),
    method=st.sampled_from([GET, HEAD]),
    upgrade=st.booleans(),
    close=st.booleans(),
)
def test_anything_in_any_pieces(
    pieces: list[bytes], places: list[int], method: bytes, upgrade: bool, close: bool
) -> None:
    """Nothing that an upstream says makes a difference by where it is cut, or raises anything."""
    raw = b"".join(pieces)

    def run(pieces: list[bytes]) -> Outcome:
        outcome = exchange(pieces, method=method, close=close, upgrade=upgrade)
        # Empty lines behind an answer are overlooked when they come with it, and end the connection when they come later.  # noqa: E501
        return evolve(judged(outcome), reusable=False)

    outcome = run([raw])
    assert run(cut_at(raw, places)) == outcome
    assert run(one_by_one(raw)) == outcome


# What is relayed.


def test_the_fields_of_one_hop_stay_here() -> None:
    """Nothing that speaks of the connection to the upstream reaches the client."""
    fields = (
        b"Connection: close, X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: x",
        b"TE: x",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"X-Kept: \t a b \t",
        b"Set-Cookie: a",
        b"Set-Cookie: b",
        b"Content-Type: text/plain",
    )
    outcome = exchange([length(b"hello", *fields, line=b"HTTP/1.1 200 Quite OK \t")])
    assert sorted(outcome.headers) == [
        (b"content-length", b"5"),
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x-kept", b"a b"),
    ]
    assert outcome.reason == b"Quite OK"
    assert [value for name, value in outcome.headers if name == b"set-cookie"] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (response(b"a: " + b"b" * (MAX_HEAD - 40), b"Content-Length: 1", body=b"x"), b"x"),
        (response(b"a: " + b"b" * MAX_HEAD, b"Content-Length: 1", body=b"x"), None),
        (response(*[b"a: b"] * MAX_HEADERS, body=b""), b""),
        (response(*[b"a: b"] * (MAX_HEADERS + 1), body=b""), None),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEAD, None),
        (b"HTTP/1.1 200 " + b"O" * MAX_HEAD * 2, None),
    ],
)
def test_the_limits_of_a_head(raw: bytes, body: bytes | None) -> None:
    """A head without end costs a bounded amount of memory."""
    for size in (len(raw), 65536, 1000):
        outcome = exchange([raw[place : place + size] for place in range(0, len(raw), size)], close=True)
        assert (outcome.end, outcome.body) == (("finished", body) if body is not None else ("UpstreamMalformed", b""))


@pytest.mark.parametrize("begin", [b"0\r\n", b"0\r\na:", b"5;"])
def test_trailers_and_extensions_without_end(begin: bytes) -> None:
    """Neither do trailers."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(begin))
    piece = b"a: b\r\n" * 1000 if begin == b"0\r\n" else b"a" * 6000
    for _ in range(MAX_HEAD // len(piece) + 2):
        if not recorder.end:
            upstream.say(piece)
    assert recorder.end == "UpstreamMalformed"


def test_a_stream_arrives_as_it_is_sent() -> None:
    """Each piece of a body is relayed when it comes, and then flushed."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(b"5\r\nhel"))
    assert (recorder.body, recorder.flushes) == (b"hel", 1)
    upstream.say(b"lo\r\n")
    assert (recorder.body, recorder.flushes) == (b"hello", 2)
    assert recorder.end == ""


def test_what_comes_together_is_told_together() -> None:
    """Whoever looks at a body, as a plugin does, need not do so for each byte of one."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(b"1\r\na\r\n" * 500))
    assert (recorder.body, recorder.pieces) == (b"a" * 500, 1)


# Requests.


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"GET", 0, None),
        (b"DELETE", 0, None),
        (b"POST", 0, b"content-length: 0"),
        (b"PUT", 0, b"content-length: 0"),
        (b"PATCH", 0, b"content-length: 0"),
        (b"GET", 5, b"content-length: 5"),
        (b"POST", None, b"transfer-encoding: chunked"),
    ],
)
def test_a_body_has_exactly_one_framing(method: bytes, length: int | None, framing: bytes | None) -> None:
    """A message with a body says once how long it is, and one without only where its method leads one to expect it."""
    head = request_head(method, b"/a", b"a", [], length, False)
    found = [line for line in head.split(b"\r\n") if line.startswith((b"content-length", b"transfer-encoding"))]
    assert found == ([] if framing is None else [framing])


TOKENS = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20).map(str.encode)
VALUES = st.lists(st.sampled_from(b"!#%:;,=/aZ09\x80\xff"), max_size=30).map(bytes)
START = re.compile(rb"([^\s]+) (/[^\s]*) HTTP/1\.1\r\n")
LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-z]+): ([\x21-\x7e\x80-\xff]*)\r\n")


def strictly_read(sent: bytes) -> tuple[bytes, bytes, Headers, bytes]:
    """The method, target, fields and body of the one request that RFC 9112 finds in these bytes, to their end."""
    start = START.match(sent)
    assert start is not None
    place, fields = start.end(), []
    while (line := LINE.match(sent, place)) is not None:
        fields.append((line[1], line[2]))
        place = line.end()
    assert sent[place : place + 2] == b"\r\n"
    rest = sent[place + 2 :]
    framing = [field for field in fields if field[0] in (b"content-length", b"transfer-encoding")]
    if framing == [(b"transfer-encoding", b"chunked")]:
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            data, end, rest = rest[: int(size, 16)], rest[int(size, 16) :][:2], rest[int(size, 16) + 2 :]
            assert end == b"\r\n"
            if not data:
                assert rest == b""
                return start[1], start[2], fields, body
            body += data
    assert [name for name, _ in framing] in ([], [b"content-length"])
    assert len(rest) == int(framing[0][1] if framing else 0)
    return start[1], start[2], fields, rest


@given(
    method=st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"M-SEARCH"]),
    target=st.text("/?%=&;:@!$~abcXYZ019", max_size=40).map(lambda text: b"/" + text.encode()),
    fields=st.lists(st.tuples(TOKENS, VALUES), max_size=10),
    length=st.one_of(st.none(), st.integers(0, 100)),
    upgrade=st.booleans(),
)
def test_a_strict_reader_finds_exactly_one_request(
    method: bytes, target: bytes, fields: Headers, length: int | None, upgrade: bool
) -> None:
    """Whatever a message holds, a strict reader finds that very message, and its body up to the last byte."""
    fields = [field for field in fields if field[0] not in HOP_BY_HOP | {b"host", b"content-length"}]
    upstream = Upstream()
    upstream.connection.send(method, target, b"a.example:81", fields, length, upgrade, TIMEOUT, Recorder())
    body = b"0\r\n\r\nGET" * 100
    body = body[: 70 if length is None else length]
    for piece in (body[:3], b"", body[3:]):  # an empty one does not end a chunked body early
        upstream.connection.write(piece)
    upstream.connection.finish()
    own = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")] if upgrade else []
    found = strictly_read(upstream.transport.take())
    framing = [field for field in found[2] if field[0] in (b"content-length", b"transfer-encoding")]
    assert found == (method, target, [(b"host", b"a.example:81"), *fields, *framing, *own], body)


def test_names_are_remembered_up_to_a_bound() -> None:
    """What clients call their headers does not stay in memory for ever, and is sent all the same."""
    for number in range(10_000):
        fields = [(b"x-%d" % number, b"1"), (b"x-%d-" % number + b"y" * 10_000, b"2")]
        head = request_head(b"GET", b"/", b"a", fields, 0, False)
        assert head.endswith(b"\r\nx-%d: 1\r\n%b: 2\r\n\r\n" % (number, fields[1][0]))
    assert len(_beginnings) <= 4096
    assert sum(map(len, _beginnings)) < 4096 * 64


def test_a_request_is_one_write() -> None:
    """The head waits for the body, or for there being none."""
    upstream = Upstream()
    writes: list[bytes] = []
    upstream.transport.write = writes.append  # type: ignore[method-assign, assignment]
    upstream.ask()
    assert writes == [HEAD_OF_GET]


def test_an_upload_at_the_pace_of_the_upstream() -> None:
    """What the upstream does not read stays with the client."""
    upstream = Upstream()
    recorder = upstream.begin()
    upstream.transport.stalled = True
    while not recorder.body_paused:
        upstream.connection.write(b"x" * 1000)
    assert upstream.transport.most_buffered < 70_000
    upstream.transport.drain()
    assert recorder.body_paused == 0


def test_an_answer_before_the_end_of_the_request() -> None:
    """It is relayed, but the connection is in the middle of a request, and of no use to others."""
    upstream = Upstream()
    recorder = upstream.begin()
    upstream.connection.write(b"half")
    upstream.say(length(b"no", line=b"HTTP/1.1 413 Too Large"))
    assert (recorder.status, recorder.end) == (413, "finished")
    upstream.connection.write(b"late")
    upstream.connection.finish()
    assert upstream.transport.aborted
    assert upstream.free == []


def test_an_answer_that_begins_before_the_end_of_the_request() -> None:
    """Both can be under way at a time, and the connection is used again when both are done."""
    upstream = Upstream()
    recorder = upstream.begin()
    upstream.connection.write(b"half")
    upstream.say(response(b"Content-Length: 4", body=b"ha"))
    upstream.connection.write(b"whole")
    upstream.connection.finish()
    upstream.say(b"lf")
    assert (recorder.body, recorder.end, upstream.reusable) == (b"half", "finished", True)


# Reuse.


def test_exchanges_follow_each_other() -> None:
    """One connection carries many exchanges, of every kind."""
    upstream = Upstream()
    for number in range(3):
        for method, raw, body in [
            (GET, length(b"hello"), b"hello"),
            (HEAD, response(b"Content-Length: 5"), b""),
            (GET, chunked(CHUNKS), b"hello"),
            (GET, response(line=b"HTTP/1.1 204 No"), b""),
            (GET, response(line=b"HTTP/1.1 100 C") + length(b""), b""),
            (HEAD, response(b"Transfer-Encoding: chunked"), b""),
            (GET, response(b"Content-Length: 7", line=b"HTTP/1.1 304 No"), b""),
            # The final answer says whether it closes; Proxy-Connection says nothing (RFC 9112 appendix C.2.2).
            (GET, response(b"Connection: close", line=b"HTTP/1.1 103 E") + length(b"hello"), b"hello"),
            (GET, length(b"hello", b"Proxy-Connection: close"), b"hello"),
            (GET, chunked(CHUNKS, b"Proxy-Connection: keep-alive"), b"hello"),
            (HEAD, response(b"Proxy-Connection: Close, x"), b""),
        ]:
            assert upstream.connection.used is (number > 0 or method is not GET or upstream.connection.used)
            recorder = upstream.ask(method)
            assert upstream.transport.take() == HEAD_OF_GET.replace(GET, method)
            upstream.say(raw)
            assert (recorder.body, recorder.end) == (body, "finished")
            assert upstream.free.pop() is upstream.connection
    assert upstream.connection.used


@pytest.mark.parametrize("late", [NEXT, b"H", b"\r\n", b"\0"])
def test_an_answer_that_nobody_asked_for(late: bytes) -> None:
    """It goes to nobody: above all not to whoever asks next."""
    upstream = Upstream()
    upstream.ask()
    upstream.say(length(b"hello"))
    assert upstream.reusable
    upstream.say(late)
    assert upstream.transport.aborted


@pytest.mark.parametrize("answer", [length(b"hello"), chunked(CHUNKS)])
@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n"])
def test_empty_lines_behind_an_answer(answer: bytes, empty: bytes) -> None:
    """They are no answer, so the next exchange gets its own."""
    upstream = Upstream()
    upstream.ask()
    upstream.say(answer + empty)
    if upstream.reusable:
        recorder = upstream.ask()
        upstream.say(length(b"world"))
        assert (recorder.body, recorder.end) == (b"world", "finished")


def test_an_answer_that_comes_with_the_end_of_another_request() -> None:
    """A new exchange may begin while the old one is told that it is over; it gets nothing of the old one."""
    upstream = Upstream()
    second = Recorder()

    class Hasty(Recorder):
        def response_finished(self) -> None:
            super().response_finished()
            send(upstream.connection, second)
            upstream.connection.finish()

    send(upstream.connection, Hasty())
    upstream.connection.finish()
    upstream.say(length(b"hello"))
    upstream.say(length(b"world"))
    assert (second.body, second.end) == (b"world", "finished")


@pytest.mark.parametrize("begun", [False, True])
def test_a_connection_that_dies(begun: bool) -> None:
    """Whether anything of the answer had come decides on what may be tried again."""
    upstream = Upstream()
    recorder = upstream.ask()
    if begun:
        upstream.say(b"H")
    upstream.close(ConnectionLost())
    assert isinstance(recorder.error, UpstreamLost)
    assert recorder.error.silent is not begun
    assert upstream.gone == [upstream.connection]


def test_a_body_to_the_end_of_a_connection_that_breaks() -> None:
    """A reset is not the end of a body."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(response(body=b"hel"))
    upstream.close(ConnectionLost())
    assert recorder.end == "UpstreamLost"


def test_abandoning_takes_the_connection_along() -> None:
    """The answer that still comes is nobody's."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(b"HTTP/1.1 200 OK\r\n")
    upstream.connection.abandon()
    upstream.say(length(b""))
    upstream.wait(TIMEOUT * 2)
    assert recorder.end == ""
    assert upstream.transport.aborted
    assert upstream.gone == [upstream.connection]


# Time.


def test_no_answer() -> None:
    """An upstream that does not answer is given up after the timeout, not before."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.wait(TIMEOUT - 0.2)
    assert recorder.end == ""
    upstream.wait(0.4)
    assert recorder.end == "UpstreamTimedOut"
    assert upstream.transport.aborted


@pytest.mark.parametrize("dribble", [b"", b"a", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_that_dribbles(dribble: bytes) -> None:
    """The headers must be complete by then; a byte now and then, or a 100, buys no time."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(b"HTTP/1.1 200 OK\r\nx: " if dribble == b"a" else b"")
    for _ in range(29):
        upstream.wait(1)
        upstream.say(dribble)
    assert recorder.end == ""
    upstream.wait(1.2)
    assert recorder.end == "UpstreamTimedOut"


@pytest.mark.parametrize(
    "raw", [chunked(b"5\r\nhello\r\n"), response(b"Content-Length: 20", body=b"hello"), response()]
)
def test_a_body_that_stalls(raw: bytes) -> None:
    """Between two pieces of a body the same time is waited."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.wait(TIMEOUT - 1)
    upstream.say(raw)
    upstream.wait(TIMEOUT - 0.2)
    assert recorder.end == ""
    upstream.wait(0.4)
    assert recorder.end == "UpstreamTimedOut"


@pytest.mark.parametrize(("begin", "again"), [(b"1", b"1"), (b"1;", b"a"), (b"0\r\n", b"a: b\r\n")])
def test_chunks_that_carry_nothing(begin: bytes, again: bytes) -> None:
    """Bytes that are no body buy no time."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(begin))
    seconds = 0
    while not recorder.end:
        upstream.wait(1)
        upstream.say(again)
        seconds += 1
        assert seconds <= TIMEOUT + 1


def test_a_slow_body() -> None:
    """A long download is none that stalls."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(b""))
    for _ in range(50):
        upstream.wait(TIMEOUT - 1)
        upstream.say(b"1\r\nx\r\n")
    upstream.say(b"0\r\n\r\n")
    assert (recorder.end, len(recorder.body)) == ("finished", 50)


def test_an_event_stream_may_be_silent() -> None:
    """Events come when they come."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(chunked(b"", b"Content-Type: text/event-stream; charset=utf-8"))
    upstream.wait(TIMEOUT * 10)
    assert recorder.end == ""
    assert upstream.connection.event_stream


def test_a_client_that_does_not_read_is_not_the_upstreams_fault() -> None:
    """While the answer is paused nothing is waited for, and nothing read."""
    upstream = Upstream()
    recorder = upstream.ask()
    upstream.say(response(b"Content-Length: 20", body=b"hello"))
    upstream.connection.pause_response()
    upstream.say(b"world")
    upstream.wait(TIMEOUT * 3)
    assert (recorder.end, recorder.body) == ("", b"hello")
    upstream.connection.resume_response()
    upstream.wait(TIMEOUT - 0.2)
    assert (recorder.end, recorder.body) == ("", b"helloworld")
    upstream.wait(0.4)
    assert recorder.end == "UpstreamTimedOut"


def test_an_upstream_that_does_not_read() -> None:
    """An upload that the upstream does not take is given up too."""
    upstream = Upstream()
    recorder = upstream.begin()
    upstream.transport.stalled = True
    upstream.connection.write(b"x" * 100_000)
    upstream.wait(TIMEOUT - 0.2)
    assert recorder.end == ""
    upstream.wait(0.4)
    assert recorder.end == "UpstreamTimedOut"


def test_the_next_exchange_has_its_own_time() -> None:
    """Neither an event stream nor a timeout lasts longer than its exchange."""
    upstream = Upstream()
    upstream.ask()
    upstream.say(length(b"hello", b"Content-Type: text/event-stream"))
    upstream.wait(TIMEOUT * 2)
    assert upstream.reusable
    assert not upstream.ask().end
    assert not upstream.connection.event_stream
    upstream.wait(TIMEOUT + 0.2)
    assert upstream.transport.aborted


def test_closing_has_an_end() -> None:
    """An upstream that does not take what is left for it does not hold the connection for ever."""
    upstream = Upstream()
    upstream.transport.stalled = True
    upstream.begin()
    upstream.connection.flush()
    upstream.connection.close()
    upstream.wait(CLOSING_TIME - 0.2)
    assert not upstream.transport.lost
    upstream.wait(0.4)
    assert upstream.transport.lost


# Upgrades.

SWITCH = response(
    b"Upgrade: WebSocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x", line=b"HTTP/1.1 101 Switching"
)


def test_a_tunnel() -> None:
    """A 101 that was asked for gives up the connection, with what the upstream sent behind it."""
    for pieces in ([SWITCH + b"early"], [*one_by_one(SWITCH[:-1]), b"\nearly"]):
        upstream = Upstream()
        recorder = upstream.ask(upgrade=True)
        for piece in pieces:
            upstream.say(piece)
        assert (recorder.status, recorder.end) == (101, "")
        assert recorder.headers == [(b"sec-websocket-accept", b"x")]
        assert upstream.connection.give_up()[:2] == (upstream.transport, b"early")
        upstream.transport.registerProducer(upstream.transport, True)
        upstream.wait(TIMEOUT * 10)
        assert upstream.free == []
        assert not upstream.transport.lost


@pytest.mark.parametrize(
    "raw",
    [
        response(b"Connection: upgrade", line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: websocket", line=b"HTTP/1.1 101 S"),
        response(line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: h2c", b"Connection: upgrade", line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: websocket, h2c", b"Connection: upgrade", line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: websocket", b"Connection: upgrade", b"bad field", line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: websocket", b"Connection: upgrade", b"a: \x01", line=b"HTTP/1.1 101 S"),
        response(b"Upgrade: websocket", b"Connection: upgrade", line=b"HTTP/1.1 101 S\x01"),
        response(b"Upgrade: websocket", b"Connection: upgrade", line=b"HTTP/1.0 101 S"),
    ],
)
def test_a_tunnel_that_is_none(raw: bytes) -> None:
    """A 101 that does not name websocket, or is malformed, begins nothing."""
    outcome = exchange([raw], upgrade=True)
    assert (outcome.status, outcome.end) == (0, "UpstreamMalformed")


def test_a_refused_tunnel() -> None:
    """An upstream may answer the wish for a WebSocket as any other request."""
    outcome = exchange([length(b"no", line=b"HTTP/1.1 403 Forbidden")], upgrade=True)
    assert (outcome.status, outcome.body, outcome.end, outcome.reusable) == (403, b"no", "finished", True)
