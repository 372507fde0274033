"""HTTP/1.1 towards clients: what is a request and what is none, in whatever pieces it arrives."""

from __future__ import annotations

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from support.http1_server import Outcome, Server, cut_at, exchange, one_by_one

from apigw.wire.channel import Settings

SMALL = Settings(max_header_size=200, max_header_count=5)


@frozen
class Case:
    name: str
    raw: bytes
    statuses: tuple[int, ...]
    bodies: tuple[bytes | None, ...] = ()
    """Of each request that reached the application, its body, None where it was not complete."""
    end: str = "half-closed"


def lines(*text: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((*text, b"", b"")) + body


def get(*fields: bytes, line: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return lines(line, *((host,) if host else ()), *fields)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return lines(b"POST /a HTTP/1.1", b"Host: a", *fields, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


def ok(name: str, raw: bytes, *bodies: bytes, end: str = "open") -> Case:
    return Case(name, raw, (200,) * len(bodies), bodies, end)


def no(name: str, raw: bytes, status: int = 400) -> Case:
    """Refused before anybody is asked."""
    return Case(name, raw, (status,))


def halfway(name: str, raw: bytes, status: int = 400) -> Case:
    """Refused when the application has already been asked."""
    return Case(name, raw, (status,), (None,))


ONE_CHUNK = b"5\r\nhello\r\n0\r\n\r\n"
NEXT = get(line=b"GET /next HTTP/1.1")
HEAD_SIZE = len(get()) - 4

CASES = [
    # Framing: who reads two lengths in two ways smuggles.
    ok("a request without body", get(), b""),
    ok("a length", post(b"Content-Length: 5", body=b"hello"), b"hello"),
    ok("a length of zero", post(b"Content-Length: 0"), b""),
    ok("a length with leading zeros", post(b"Content-Length: 0005", body=b"hello"), b"hello"),
    ok("white space around a length", post(b"Content-Length:\t 5 \t", body=b"hello"), b"hello"),
    ok("chunked", chunked(ONE_CHUNK), b"hello"),
    ok("chunked, in capitals", post(b"TRANSFER-ENCODING: ChunKed", body=ONE_CHUNK), b"hello"),
    no("both a length and chunked", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=ONE_CHUNK)),
    no("chunked and then a length", chunked(ONE_CHUNK, b"Content-Length: 5")),
    no("a length of zero and chunked", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=ONE_CHUNK)),
    no("two lengths", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!")),
    no("the same length twice", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    no("a list of lengths", post(b"Content-Length: 5, 5", body=b"hello")),
    no("an empty length", post(b"Content-Length:")),
    no("a length of white space", post(b"Content-Length:  ")),
    no("a signed length", post(b"Content-Length: +5", body=b"hello")),
    no("a negative length", post(b"Content-Length: -5", body=b"hello")),
    no("a hexadecimal length", post(b"Content-Length: 0x5", body=b"hello")),
    no("a length with a fraction", post(b"Content-Length: 5.0", body=b"hello")),
    no("a length with an underscore", post(b"Content-Length: 1_0", body=b"0123456789")),
    no("a length in Arabic digits", post(b"Content-Length: \xd9\xa5", body=b"hello")),
    no("a length beyond 64 bits", post(b"Content-Length: 18446744073709551616")),
    no("another coding", post(b"Transfer-Encoding: gzip")),
    no("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=ONE_CHUNK)),
    no("gzip and chunked in two fields", chunked(ONE_CHUNK, b"Transfer-Encoding: gzip")),
    no("chunked, gzip", post(b"Transfer-Encoding: chunked, gzip", body=ONE_CHUNK)),
    no("chunked twice", post(b"Transfer-Encoding: chunked, chunked", body=ONE_CHUNK)),
    no("chunked in two fields", chunked(ONE_CHUNK, b"Transfer-Encoding: chunked")),
    no("identity", post(b"Transfer-Encoding: identity")),
    no("an empty coding", post(b"Transfer-Encoding:")),
    no("xchunked", post(b"Transfer-Encoding: xchunked", body=ONE_CHUNK)),
    no("chunked with a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=ONE_CHUNK)),
    no("chunked in quotes", post(b'Transfer-Encoding: "chunked"', body=ONE_CHUNK)),
    no("chunked with a parameter", post(b"Transfer-Encoding: chunked;q=1", body=ONE_CHUNK)),
    no("chunked with a comma", post(b"Transfer-Encoding: chunked,", body=ONE_CHUNK)),
    no("chunked in 1.0", lines(b"POST /a HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked", body=ONE_CHUNK)),
    # The chunked coding.
    ok("several chunks", chunked(b"5\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\n\r\n"), b"hello world"),
    ok("no chunk", chunked(b"0\r\n\r\n"), b""),
    ok("several zeros", chunked(b"000\r\n\r\n"), b""),
    ok("a body of empty lines", chunked(b"8\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n"), b"\r\n\r\n\r\n\r\n"),
    ok("a body that looks like an end", chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), b"0\r\n\r\n"),
    ok("extensions", chunked(b'5;a;b=c;d="e\\"; f"\r\nhello\r\n0;last\r\n\r\n'), b"hello"),
    ok("trailers", chunked(b"5\r\nhello\r\n0\r\nX-User-ID: root\r\nContent-Length: 7\r\n\r\n"), b"hello"),
    halfway("no size", chunked(b"\r\nhello\r\n0\r\n\r\n")),
    halfway("a size in words", chunked(b"five\r\nhello\r\n0\r\n\r\n")),
    halfway("a size with 0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    halfway("a negative size", chunked(b"-5\r\nhello\r\n0\r\n\r\n")),
    halfway("a signed size", chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    halfway("white space before a size", chunked(b" 5\r\nhello\r\n0\r\n\r\n")),
    halfway("white space behind a size", chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    halfway("white space before an extension", chunked(b"5 ;a\r\nhello\r\n0\r\n\r\n")),
    halfway("a size beyond 64 bits", chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    halfway("a size of sixteen digits", chunked(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
    halfway("a size behind a bare LF", chunked(b"5\nhello\r\n0\r\n\r\n")),
    halfway("a size behind a bare CR", chunked(b"5\rhello\r\n0\r\n\r\n")),
    halfway("a bare LF in an extension", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n")),
    halfway("a bare CR in an extension", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    halfway("NUL in an extension", chunked(b"5;a\0b\r\nhello\r\n0\r\n\r\n")),
    halfway("an extension without name", chunked(b"5;\r\nhello\r\n0\r\n\r\n")),
    halfway("an extension without end", chunked(b"5;" + b"a" * 1100 + b"\r\nhello\r\n0\r\n\r\n")),
    halfway("a chunk that is too long", chunked(b"5\r\nhello!\r\n0\r\n\r\n")),
    halfway("a chunk that is too short", chunked(b"5\r\nhell\r\n0\r\n\r\n")),
    halfway("a chunk that ends with LF", chunked(b"5\r\nhello\n0\r\n\r\n")),
    halfway("a chunk that ends with CR", chunked(b"5\r\nhello\r0\r\n\r\n")),
    halfway("a trailer that is none", chunked(b"0\r\nGET / HTTP/1.1\r\n\r\n")),
    halfway("a trailer with a folded line", chunked(b"0\r\na: b\r\n c\r\n\r\n")),
    halfway("a trailer with white space before its colon", chunked(b"0\r\na : b\r\n\r\n")),
    halfway("a trailer behind a bare LF", chunked(b"0\r\na: b\n\r\n\r\n")),
    halfway("a trailer with NUL", chunked(b"0\r\na: \0\r\n\r\n")),
    # Lines and fields.
    no("a bare LF behind the request line", b"GET /a HTTP/1.1\nHost: a\r\n\r\n"),
    no("bare LFs only", b"GET /a HTTP/1.1\nHost: a\n\n"),
    no("a bare LF behind a field", get(b"a: b\nc: d")),
    no("a bare LF at the end", b"GET /a HTTP/1.1\r\nHost: a\r\n\n"),
    no("a bare CR in a value", get(b"a: b\rc: d")),
    no("a bare CR in a name", get(b"a\rb: c")),
    no("a bare CR in the target", get(line=b"GET /a\rb HTTP/1.1")),
    no("CR CR LF", b"GET /a HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    no("a folded line", get(b"a: b", b" c: d")),
    no("a line folded with a tab", get(b"a: b", b"\tc: d")),
    no("a folded first field", lines(b"GET /a HTTP/1.1", b" Host: a")),
    no("a folded length", post(b"Content-Length:", b" 5", body=b"hello")),
    no("white space before a colon", get(b"a : b")),
    no("a tab before a colon", get(b"a\t: b")),
    no("white space before the colon of a length", post(b"Content-Length : 5", body=b"hello")),
    no("white space before the colon of a coding", post(b"Transfer-Encoding : chunked", body=ONE_CHUNK)),
    no("a field without colon", get(b"a")),
    no("a field without name", get(b": b")),
    no("a name with a space", get(b"a b: c")),
    no("a name with a bracket", get(b"a[]: c")),
    no("a name with a quote", get(b'"a": c')),
    no("a name that is not ASCII", get(b"\xc3\xa4: c")),
    no("NUL in a name", get(b"a\0: b")),
    no("NUL in a value", get(b"a: \0")),
    no("a control character in a value", get(b"a: \x1b[0m")),
    no("DEL in a value", get(b"a: \x7f")),
    ok("an empty value", get(b"a:", b"b: "), b""),
    ok("a value that is not ASCII", get(b"a: \xc3\xa4\xff"), b""),
    ok("a tab in a value", get(b"a: b\tc"), b""),
    ok("white space around a value", get(b"a:\t b \t"), b""),
    # The request line.
    no("0.9", b"GET /a\r\n\r\n"),
    no("0.9 with its version", get(line=b"GET /a HTTP/0.9")),
    ok("1.2", get(line=b"GET /a HTTP/1.2"), b""),
    ok("1.9 with a body", lines(b"POST /a HTTP/1.9", b"Host: a", b"Transfer-Encoding: chunked", body=ONE_CHUNK), b"hello"),  # noqa: E501
    ok("a registered method that llhttp does not know", get(line=b"LABEL /a HTTP/1.1") + NEXT, b"", b""),
    ok("the same in 1.2", get(line=b"VERSION-CONTROL /a HTTP/1.2"), b""),
    no("a registered method, and two lengths", get(b"Content-Length: 1", b"Content-Length: 1", line=b"LABEL /a HTTP/1.1")),  # noqa: E501
    no("a registered method, and a bare LF", get(b"a: b\nc: d", line=b"LABEL /a HTTP/1.1")),
    no("1.2 without Host", get(line=b"GET /a HTTP/1.2", host=b"")),
    no("an unknown method in 1.2", get(line=b"BREW /a HTTP/1.2"), 501),
    no("a registered method in lower case", get(line=b"label /a HTTP/1.1"), 501),
    no("2.0", get(line=b"GET /a HTTP/2.0")),
    no("3", get(line=b"GET /a HTTP/3")),
    no("1.10", get(line=b"GET /a HTTP/1.10")),
    no("01.1", get(line=b"GET /a HTTP/01.1")),
    no("http in lower case", get(line=b"GET /a http/1.1")),
    no("RTSP", get(line=b"DESCRIBE /a RTSP/1.0")),
    no("RTSP with HTTP's method", get(line=b"GET /a RTSP/1.0")),
    no("ICE", get(line=b"SOURCE /a ICE/1.0")),
    no("ICE with HTTP's method", get(line=b"GET /a ICE/1.1")),
    no("two spaces behind the method", get(line=b"GET  /a HTTP/1.1")),
    no("two spaces before the version", get(line=b"GET /a  HTTP/1.1")),
    no("a space behind the version", get(line=b"GET /a HTTP/1.1 ")),
    no("a space before the method", get(line=b" GET /a HTTP/1.1")),
    no("a tab behind the method", get(line=b"GET\t/a HTTP/1.1")),
    no("a tab before the version", get(line=b"GET /a\tHTTP/1.1")),
    no("a space in the target", get(line=b"GET /a b HTTP/1.1")),
    no("two requests in one line", get(line=b"GET /a HTTP/1.1 GET /b HTTP/1.1")),
    no("no target", get(line=b"GET HTTP/1.1")),
    no("an empty target", get(line=b"GET  HTTP/1.1")),
    no("an empty method", get(line=b"/a HTTP/1.1")),
    no("NUL in the target", get(line=b"GET /a\0b HTTP/1.1")),
    no("a fragment", get(line=b"GET /a#b HTTP/1.1")),
    no("a target that is not ASCII", get(line=b"GET /\xc3\xa4 HTTP/1.1")),
    no("a relative target", get(line=b"GET a HTTP/1.1")),
    no("the target *", get(line=b"OPTIONS * HTTP/1.1")),
    no("only a query", get(line=b"GET ?a HTTP/1.1")),
    no("two slashes", get(line=b"GET //a HTTP/1.1")),
    no("a dot segment", get(line=b"GET /a/%2e%2E/b HTTP/1.1")),
    no("an unknown method", get(line=b"BREW /a HTTP/1.1"), 501),
    no("a method in lower case", get(line=b"get /a HTTP/1.1"), 501),
    no("a method of RTSP", get(line=b"DESCRIBE /a HTTP/1.1"), 501),
    no("an unknown method, and a control character", get(b"a: \x01", line=b"BREW /a HTTP/1.1")),
    no("a method that is no token", get(line=b"GE(T /a HTTP/1.1")),
    no("CONNECT", get(line=b"CONNECT a:80 HTTP/1.1"), 405),
    no("HTTP/2's preface in the wrong place", get(line=b"PRI * HTTP/2.0")),
    no("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(1, 120))),
    no("a greeting of SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ok("an empty line first", b"\r\n" + get(), b""),
    ok("an empty line between two", get() + b"\r\n" + get(), b"", b""),
    ok("an empty line behind a body", post(b"Content-Length: 5", body=b"hello\r\n") + get(), b"hello", b""),
    no("two empty lines first", b"\r\n\r\n" + get()),
    no("three empty lines first", b"\r\n\r\n\r\n" + get()),
    no("an empty line of LF first", b"\n" + get()),
    no("an empty line of CR first", b"\r" + get()),
    # Host.
    no("no Host", get(host=b"")),
    no("Host twice", get(b"Host: b")),
    no("the same Host twice", get(b"Host: a")),
    no("an empty Host", get(host=b"Host:")),
    no("a Host with a path", get(host=b"Host: a/b")),
    no("a Host with a user", get(host=b"Host: a@b")),
    no("a Host with a space", get(host=b"Host: a b")),
    no("a Host with a comma and a space", get(host=b"Host: a, b")),
    no("a Host with a port in words", get(host=b"Host: a:http")),
    no("a Host of a port", get(host=b"Host: :80")),
    no("a Host of a question mark", get(host=b"Host: ?")),
    no("a Host with an open bracket", get(host=b"Host: [::1")),
    no("a Host that is not ASCII", get(host=b"Host: \xc3\xa4")),
    ok("a Host with a port", get(host=b"Host: a:8080"), b""),
    ok("a Host of IPv6", get(host=b"Host: [::1]:8080"), b""),
    ok("1.0 without Host", lines(b"GET /a HTTP/1.0"), b"", end="closed"),
    no("1.0 with two", lines(b"GET /a HTTP/1.0", b"Host: a", b"Host: b")),
    # Absolute-form.
    ok("a URL", get(line=b"GET http://a/b?c HTTP/1.1"), b""),
    ok("a URL without path", get(line=b"GET http://a HTTP/1.1"), b""),
    ok("a URL with a query and no path", get(line=b"GET http://A?b HTTP/1.1"), b""),
    ok("a URL with the default port", get(line=b"GET http://a:80/ HTTP/1.1"), b""),
    ok("a Host with an empty port", get(line=b"GET http://a/ HTTP/1.1", host=b"Host: a:"), b""),
    ok("a URL in 1.0 without Host", lines(b"GET http://a/b HTTP/1.0"), b"", end="closed"),
    no("a URL in 1.0 without host", lines(b"GET http:///b HTTP/1.0")),
    no("a URL in 1.0 of another Host", lines(b"GET http://b/ HTTP/1.0", b"Host: a")),
    no("a URL of another host", get(line=b"GET http://b/ HTTP/1.1")),
    no("a URL of another port", get(line=b"GET http://a:81/ HTTP/1.1")),
    no("a URL with a user", get(line=b"GET http://b@a/ HTTP/1.1")),
    no("a URL without host", get(line=b"GET http:///a HTTP/1.1")),
    no("a URL of another scheme", get(line=b"GET ftp://a/ HTTP/1.1")),
    no("a URL with a dot segment", get(line=b"GET http://a/../b HTTP/1.1")),
    no("a URL without Host", get(line=b"GET http://a/ HTTP/1.1", host=b"")),
    # Connections.
    ok("two in a row", get() + NEXT, b"", b""),
    ok("one behind a body", post(b"Content-Length: 5", body=b"hello") + NEXT, b"hello", b""),
    ok("one behind a chunked body", chunked(ONE_CHUNK) + NEXT, b"hello", b""),
    ok("one behind trailers", chunked(b"0\r\na: b\r\n\r\n") + NEXT, b"", b""),
    ok("one that asks to close", get(b"Connection: close"), b"", end="closed"),
    ok("one that asks a proxy to close", get(b"Proxy-Connection: close") + NEXT, b"", b""),
    ok("one that asks to close, in a list", get(b"Connection: Foo, CLOSE"), b"", end="closed"),
    ok("one that asks to close a body", post(b"Connection: close", b"Content-Length: 2", body=b"hi"), b"hi", end="closed"),  # noqa: E501
    ok("1.0", lines(b"GET /a HTTP/1.0", b"Host: a"), b"", end="closed"),
    ok("1.0 that would keep the connection", lines(b"GET /a HTTP/1.0", b"Connection: keep-alive"), b"", end="closed"),
    Case("one behind a refusal", get(host=b"") + NEXT, (400,)),
    Case("one behind a refused body", chunked(b"x\r\n") + NEXT, (400,), (None,)),
    Case("one behind two", get() + NEXT + get(host=b""), (200, 200, 400), (b"", b"")),
    # Upgrades and expectations.
    ok("an upgrade that nobody knows", get(b"Connection: upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AA") + NEXT, b"", b""),  # noqa: E501
    ok("an upgrade with a body", post(b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 2", body=b"hi") + NEXT, b"hi", b""),  # noqa: E501
    ok("an upgrade with chunks", chunked(ONE_CHUNK, b"Connection: upgrade", b"Upgrade: websocket") + NEXT, b"hello", b""),  # noqa: E501
    no("an upgrade with two lengths", chunked(ONE_CHUNK, b"Content-Length: 5", b"Connection: upgrade", b"Upgrade: x")),
    ok("an upgrade in 1.0", lines(b"GET /a HTTP/1.0", b"Connection: upgrade", b"Upgrade: websocket"), b"", end="closed"),  # noqa: E501
    ok("an expectation", post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi") + NEXT, b"hi", b""),
    ok("an expectation in capitals", post(b"Expect: 100-Continue", b"Content-Length: 2", body=b"hi"), b"hi"),
    ok("an expectation of nothing known", post(b"Expect: tea", b"Content-Length: 2", body=b"hi"), b"hi"),
    ok("an expectation without body", get(b"Expect: 100-continue") + NEXT, b"", b""),
    ok("an expectation of a chunked body", chunked(ONE_CHUNK, b"Expect: 100-continue") + NEXT, b"hello", b""),
]  # fmt: skip

LIMITS = [
    ok("as many fields as may be", get(b"a: b", b"c: d", b"e: f", b"g: h"), b""),
    no("a field more", get(b"a: b", b"c: d", b"e: f", b"g: h", b"i: j"), 431),
    no("a Connection more", get(b"a: b", b"c: d", b"e: f", b"g: h", b"Connection: close"), 431),
    ok("a head as large as may be", get(b"a: " + b"b" * (200 - HEAD_SIZE - 5)), b""),
    no("a byte more", get(b"a: " + b"b" * (200 - HEAD_SIZE - 4)), 431),
    no("many more", get(b"a: " + b"b" * 2000), 431),
    no("fields without end", get()[:-2] + b"a: b\r\n" * 100, 431),
    ok("a target as long as may be", get(line=b"GET /%s HTTP/1.1" % (b"a" * (200 - HEAD_SIZE + 1))), b""),
    no("a target without end", b"GET /" + b"a" * 300, 414),
    no("a target that fills the head", get(line=b"GET /%s HTTP/1.1" % (b"a" * 300)), 414),
    no("a target longer than the head, and NUL behind it", b"GET /" + b"a" * 300 + b"\0", 414),
    no("a target that ends where the head must", get(line=b"GET /%s HTTP/1.1" % (b"a" * 181)), 431),
    no("a method without end", b"G" * 300, 414),
    ok("a second head as large as may be", get() + get(b"a: " + b"b" * (200 - HEAD_SIZE - 5)), b"", b""),
    ok("trailers as large as may be", chunked(b"0\r\na: " + b"b" * 195 + b"\r\n\r\n"), b""),
    halfway("trailers a byte larger", chunked(b"0\r\na: " + b"b" * 196 + b"\r\n\r\n"), 431),
    halfway("a trailer without end", chunked(b"0\r\na: " + b"b" * 1000), 431),
    halfway("trailers without end", chunked(b"0\r\n" + b"a: b\r\n" * 100), 431),
    ok("an extension as long as may be", chunked(b"1;" + b"a" * 1022 + b"\r\nx\r\n0\r\n\r\n"), b"x"),
    halfway("an extension a byte longer", chunked(b"1;" + b"a" * 1023 + b"\r\nx\r\n0\r\n\r\n")),
]  # fmt: skip

ALL = [(case, Settings()) for case in CASES] + [(case, SMALL) for case in LIMITS]
every_case = pytest.mark.parametrize(("case", "settings"), ALL, ids=[case.name for case, _ in ALL])


def check(case: Case, outcome: Outcome) -> None:
    assert outcome.statuses == list(case.statuses)
    assert outcome.bodies == list(case.bodies)
    assert outcome.end == case.end


@every_case
def test_what_a_client_sends(case: Case, settings: Settings) -> None:
    """It is understood or refused as the standard says, byte by byte too, and wherever the network cuts it in two."""
    whole = exchange([case.raw], settings)
    check(case, whole)
    assert exchange(one_by_one(case.raw), settings) == whole
    # All places of what is short; of what is long its edges, and some between.
    places = range(1, len(case.raw)) if len(case.raw) < 220 else [*range(1, 30), *range(30, len(case.raw), 17)]
    for place in places:
        assert exchange(cut_at(case.raw, [place]), settings) == whole, place


@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([get(), NEXT, chunked(ONE_CHUNK), post(b"Content-Length: 3", body=b"abc")]),
            st.sampled_from(
                [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", b"Host: a\r\n", b"GET / HTTP/1.1\r\n"]
            ),
            st.sampled_from([b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"a: b\r\n"]),
        ),
        max_size=8,
    ),
    places=st.lists(st.integers(1, 300), max_size=8),
)
def test_anything_in_any_pieces(pieces: list[bytes], places: list[int]) -> None:
    """Nothing that a client sends makes a difference by where it is cut, or raises anything."""
    raw = b"".join(pieces)
    outcome = exchange([raw])
    assert exchange(cut_at(raw, places)) == outcome
    assert exchange(one_by_one(raw)) == outcome


@every_case
def test_the_next_client_is_served(case: Case, settings: Settings) -> None:
    """Whatever one client sends, the next is served as if nothing had been."""
    server = Server(settings)
    server.connect().send(case.raw)
    server.seen.clear()
    client = server.connect()
    client.send(get())
    assert client.receive().startswith(b"HTTP/1.1 200 OK\r\n")
