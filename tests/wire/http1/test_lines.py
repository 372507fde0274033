"""Usual heads are read by their lines, exactly as llhttp reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.wire.errors import Refused, UpstreamMalformed
from apigw.wire.http1 import lines
from apigw.wire.http1.head import HeadReader
from apigw.wire.http1.lines import LINES, UNUSUAL, LinesBefore
from apigw.wire.http1.response import ResponseReader
from apigw.wire.request import Request, Stream

NAMES = st.sampled_from(
    b"host|content-length|connection|keep-alive|x-a|X-B|te|transfer-encoding|upgrade|expect|accept|cookie|content-type"
    b"|proxy-connection|trailer|date|close|x_c!|a b|".split(b"|")
)
VALUES = st.one_of(
    st.sampled_from(
        b"a|a:1|a, b|0|5|05|+5|5, 5|close|Close|keep-alive|chunked|upgrade|websocket|trailers|100-continue"
        b"|text/event-stream"
        b"||\t|\xe4\xf6|\x00|\x7f|\r|\n|a\rb|a\nb".split(b"|")
    ),
    st.binary(max_size=4),
)
BLANKS = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
PADDED = st.builds(lambda a, value, b: a + value + b, BLANKS, VALUES, BLANKS)
FIELDS = st.lists(
    st.builds(lambda name, gap, value: name + gap + b":" + value, NAMES, st.sampled_from([b"", b" "]), PADDED),
    max_size=5,
)
FOLDED = st.sampled_from([b"", b"", b"", b" folded", b"\tfolded", b"no colon"])
TARGETS = st.one_of(
    st.sampled_from(b'/|/a/b|/a?b=c|/a//b|/./a|/a;b|/%2f|/%zz|*|http://a/b|a|/a#b|/\xe4|/"<>\\^`{|}'.split(b"|")),
    st.binary(max_size=3).map(lambda tail: b"/" + tail),
)


def _whole(first: bytes, fields: list[bytes], last: bytes) -> bytes:
    head = b"\r\n".join([first, *fields, *([last] if last else [])])
    return head.split(b"\r\n\r\n")[0] + b"\r\n\r\n"


REQUESTS = st.builds(
    lambda method, target, version, fields, last: _whole(b"%b %b %b" % (method, target, version), fields, last),
    st.sampled_from([b"GET", b"POST", b"HEAD", b"get", b"PURGE", b""]),
    TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.1 ", b"http/1.1"]),
    FIELDS,
    FOLDED,
)
ANSWERS = st.builds(
    lambda first, fields, last: _whole(first, fields, last),
    st.sampled_from(
        b"HTTP/1.1 200 OK|HTTP/1.1 200 |HTTP/1.1 200|HTTP/1.1 204 No Content|HTTP/1.1 304 a|HTTP/1.1 404 a\xe4"
        b"|HTTP/1.1 500 a\tb|HTTP/1.1 426 a|HTTP/1.1 600 a|HTTP/1.1 2000 a|HTTP/1.1  200 a|HTTP/1.1 200  a"
        b"|HTTP/1.1 200 a |HTTP/1.0 200 OK".split(b"|")
    ),
    FIELDS,
    FOLDED,
)


def _facts(request: Request, reader: HeadReader) -> list[Any]:
    names = ("method", "uri", "path", "query", "authority", "clientproto", "content_length", "odd", "upgrade")
    more = ("body_complete", "wants_trailers")
    headers = sorted(request.headers)
    return [*(getattr(request, name) for name in names + more), headers, reader.closing, reader.expects_continue]


@given(REQUESTS, st.booleans())
def test_a_usual_request_is_read_as_llhttp_reads_it(head: bytes, kept: bool) -> None:
    """What is taken by its lines is taken by llhttp, with the same facts."""
    stream, quick, thorough = Stream(b"192.0.2.1", False), HeadReader(), HeadReader()
    try:
        request = quick._read_usual(stream, head[:-4], 100, 3 if kept else 0)
    except Refused as refusal:
        with pytest.raises(Refused) as refused:
            thorough._read_any(stream, head, 100, 3 if kept else 0)
        assert refused.value.status == refusal.status
        return
    if request is not None:
        other = thorough._read_any(stream, head, 100, 3 if kept else 0)
        assert _facts(request, quick) == _facts(other, thorough)


def _read(data: bytes, bodyless: bool, usual: bool) -> list[Any]:
    reader = ResponseReader()
    reader.state = 1
    reader.bodyless = bodyless
    head, _, rest = data.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    reader.state = 2
    if usual:
        if not reader._read_usual(head[:-4]):
            return []
        reader._begin(reader.status, rest)
    else:
        reader._parsed = True
        reader._parse_head(head, rest)
    facts = [reader.state, reader.status, reader.reason, sorted(reader.headers), reader.reusable, reader.event_stream]
    return [*facts, reader.version, b"".join(reader.pieces), reader.close_delimited]


@given(ANSWERS, st.sampled_from([b"", b"12345", b"1234", b"123456"]), st.booleans())
def test_a_usual_answer_is_read_as_llhttp_reads_it(head: bytes, body: bytes, bodyless: bool) -> None:
    """What is taken by its lines is taken by llhttp, with the same facts and the same body."""
    facts = _read(head + body, bodyless, usual=True)
    if facts:
        assert facts == _read(head + body, bodyless, usual=False)


def test_malformed_answers_are_not_usual() -> None:
    """A folded line, and two lengths, are left to llhttp, which refuses them."""
    for line in (b"a: b\r\n c: d", b"Content-Length: 1\r\nContent-Length: 2", b"a : b"):
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + line + b"\r\n\r\n"
        assert _read(data, False, usual=True) == []
        with pytest.raises(UpstreamMalformed):
            _read(data, False, usual=False)


def test_a_field_that_connection_names_is_not_passed_on() -> None:
    """``Connection: close`` names the field ``close``, too, if there is one (RFC 9110 §7.6.1)."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nclose: a\r\nConnection: close\r\n\r\n"
    assert _read(data, False, usual=True) == []
    assert _read(data, False, usual=False)[3] == [(b"content-length", b"0")]


def test_the_memory_is_bounded_and_keeps_no_secrets() -> None:
    """Lines with secrets are not remembered; beyond ``MOST`` lines all are forgotten."""
    LINES.clear()
    for line in (b"Authorization: Bearer a", b"Cookie: a=b", b"Set-Cookie: a=b", b"X-API-Key: a", b"X-Auth-Token: a"):
        assert LINES[line].kind != UNUSUAL
    assert LINES[b"a b: c"].kind == UNUSUAL
    assert not LINES
    for number in range(lines.MOST + 10):
        assert LINES[b"x: %d" % number].value == b"%d" % number
    assert len(LINES) == 10
    LINES.clear()


def test_a_line_at_its_place_means_what_it_means_anywhere() -> None:
    """Whatever was at this place before, and however often it is asked for."""
    before = LinesBefore()
    asked = [
        b"A: b",
        b"A: c",
        b"A: b",
        b"a b: c",
        b"Cookie: a=b",
        b"Cookie: a=c",
        b"Content-Length: 5",
        b"A: " + b"b" * 200,
    ]
    for text in [*asked, *asked]:
        for place in (0, 1):
            line, known = before.line(place, text), lines.judged(text)
            assert (line.kind, line.field, line.length) == (known.kind, known.field, known.length)


def test_no_secret_is_kept_at_a_place() -> None:
    """A line that is not remembered by its bytes is not kept from one message to the next."""
    before = LinesBefore()
    for text in (b"Cookie: a=b", b"Authorization: Basic YTpi", b"X-API-Key: a", b"X: " + b"a" * lines.LONGEST):
        before.line(0, text)
        assert [line.text for line in before._lines] == [b""]
