# Compiled: see docs/decisions/compiled.md
"""The head of an HTTP/1.1 request, parsed strictly (RFC 9112).

A head of usual lines is read by them (``lines``). Any other is parsed by llhttp, which gets one complete head at a
time, so that its request line can be compared with the bytes that were sent. Where llhttp accepts what two programs
could read in two ways, this module refuses it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from apigw.wire.errors import Refused
from apigw.wire.headers import HOP_BY_HOP, NO_LINE, Headers, connection_options
from apigw.wire.http1.lines import CLOSE, END_OF_HEAD, HOST, LENGTH, OF_HOP, UNUSUAL, LinesBefore
from apigw.wire.methods import METHODS, REGISTERED_BESIDES
from apigw.wire.request import Request, Stream
from apigw.wire.target import check_authority, check_target, oddities, split_absolute

_SPECIAL: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
"""Fields about the framing or for this hop only. All others go to the service."""
_NOT_NAMED_AWAY: Final = frozenset(
    b"close keep-alive upgrade forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip".split()
)
"""Options of ``Connection`` that remove no field. A proxy in front may forward its client's ``Connection``; the client
could remove the proxy's fields with it, and hide its own address (CVE-2022-31813)."""
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_USUAL_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)( [^ \r\n]+ HTTP/1\.)([0-9])\r\n").match
_TRAILERS: Final = re.compile(rb"(?:\A|,)[ \t]*trailers[ \t]*(?:[,;]|\Z)", re.IGNORECASE).search
_IMPOSSIBLE: Final = b"\0"
_HANDSHAKE: Final = b"\x16"
"""The first byte of a client that speaks TLS: the type of its record (RFC 8446 §5.1)."""
_BLANKS = (b" ", b"\t")


def check_beginning(data: bytes, searched: int, most: int) -> None:
    """Raises ``Refused`` at once for a beginning that cannot become a valid head.

    The first ``searched`` bytes were checked before. A head may have ``most`` bytes.
    """
    if NO_LINE(data, max(0, searched - 1), most + 4):
        if data.startswith(_HANDSHAKE):
            raise Refused(400, "The client speaks TLS, which this port does not: use http://.")
        raise Refused(400, "The request's head contains a control character, a bare CR or a bare LF.")
    if len(data) > most + 3:
        if b"\r\n" in data[:most]:
            raise Refused(431, "The request's headers are too large.")
        raise Refused(414, "The request target is too long.")


class HeadReader:
    """Parses the heads of all connections, one after the other.

    A parser is used for one head after the other as long as nothing about them is special: making one takes longer than
    parsing some fields. What such a parser does not take, a new one decides about, so that no head can depend on what
    another client has sent.
    """

    closing = False
    """Whether the last request asks to close the connection, or is HTTP/1.0."""
    expects_continue = False
    """Whether the client waits for ``100 Continue`` before it sends the last request's body."""

    def __init__(self) -> None:
        self._parser: Any = None
        """One that has parsed complete requests without a body only."""
        self._authority = _IMPOSSIBLE  # of the last request, and nearly always also of the next
        self._before = LinesBefore()

    def read(self, stream: Stream, head: bytes, max_count: int, kept: int = 0) -> Request:
        """Parse a head, given without its empty line. Raises ``Refused``. ``kept``: ``Settings.kept_oddities``."""
        request = self._read_usual(stream, head, max_count, kept)
        return self._read_any(stream, head + END_OF_HEAD, max_count, kept) if request is None else request

    def _read_usual(self, stream: Stream, head: bytes, max_count: int, kept: int) -> Request | None:
        """The request of a head in which every line is a usual one; None for any other."""
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ")
        count = len(lines)
        if len(words) != 3 or words[2] != b"HTTP/1.1" or words[0] not in _USUAL_METHODS or count > max_count:
            return None
        uri = words[1]
        if not uri.startswith(b"/"):
            return None
        headers: list[Any] = []
        host = length = closes = None
        before = self._before
        for number in range(1, count):
            line = before.line(number - 1, lines[number])
            kind = line.kind
            if kind == HOST:
                if host is not None:
                    return None
                host = line
            elif kind == LENGTH:
                if length is not None:
                    return None
                length = line
            elif kind == CLOSE:
                closes = line
            elif kind == UNUSUAL:
                return None
            elif kind != OF_HOP:
                headers.append(line.field)
        if host is None:
            return None
        headers.append(host.field)
        size = 0
        if length is not None:
            size = length.length
            headers.append(length.field)
        if host.value != self._authority:
            self._authority = _checked_authority(host.value, b"HTTP/1.1")
        path, query = check_target(uri, kept)
        request = Request(stream, words[0], uri, path, query, host.value, headers, b"HTTP/1.1", size)
        if kept:
            request.odd = oddities(path)
        request.body_complete = size == 0
        self.closing = closes is not None
        self.expects_continue = False
        return request

    def _read_any(self, stream: Stream, head: bytes, max_count: int, kept: int) -> Request:
        """The request of any head, here with its empty line."""
        renamed = b""
        protocol: bytes | None = None
        upgrade = False
        parser: Any = self._parser
        self._parser = None
        if parser is not None:
            try:
                upgrade = self._parse(parser, head)
                protocol = self._protocol(parser, head)
            except HttpParserError:
                pass
        if protocol is None:
            parser = HttpRequestParser(self)
            try:
                upgrade = self._parse(parser, head)
            except HttpParserError as error:
                known = _as_llhttp_knows_it(head)
                if known is None:
                    raise _refused(head, error) from None
                renamed, head = head[: head.find(b" ")], known
                parser = HttpRequestParser(self)
                try:
                    upgrade = self._parse(parser, head)
                except HttpParserError as other:
                    raise _refused(head, other) from None
            protocol = self._protocol(parser, head)
            if protocol is None:
                raise Refused(400, "The request line is malformed, or its version neither HTTP/1.0 nor HTTP/1.1.")
        headers, special = self._headers, self._special
        uri = self._url
        method: bytes = renamed or parser.get_method()
        if len(headers) + len(special) > max_count:
            raise Refused(431, "The request has too many headers.")
        authority: bytes | None = None
        length: int | None = 0
        options: frozenset[bytes] = _NO_OPTIONS
        expects = stopped = trailers = False
        for name, value in special:
            if name == b"host":
                if authority is not None:
                    raise Refused(400, "The Host is repeated.")
                authority = value
                headers.append((name, value))
            elif name == b"content-length":
                length = int(value)
                headers.append((name, value))
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or protocol != b"HTTP/1.1":
                    raise Refused(400, "The only supported transfer coding is chunked, in HTTP/1.1.")
                length = None
            elif name == b"connection":
                options |= connection_options(value)
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
            elif name == b"te":
                trailers = trailers or _TRAILERS(value) is not None
            elif name == b"proxy-connection":
                stopped = True  # llhttp takes it for Connection, wrongly (RFC 9112 Appendix C.2.2)
        if not authority or authority != self._authority:
            self._authority = _checked_authority(authority, protocol)
        if method == b"CONNECT":
            raise Refused(405, "CONNECT is not supported.")
        if not uri.startswith(b"/"):
            if uri == b"*":
                raise Refused(400, "The request target * has no path.")
            uri, named = split_absolute(uri, self._authority)
            self._authority = self._authority or named  # in HTTP/1.0, only the target may have it
        path, query = check_target(uri, kept)
        request = Request(stream, method, uri, path, query, self._authority, headers, protocol, length)
        if kept:
            request.odd = oddities(path)
        request.body_complete = length == 0
        request.wants_trailers = trailers
        self.closing = b"close" in options or protocol == b"HTTP/1.0"
        if options:
            request.drop_headers(options - _NOT_NAMED_AWAY)
        if upgrade and method == b"GET" and length == 0 and protocol == b"HTTP/1.1":
            request.upgrade = _names_websocket(special)
        if not (upgrade or length != 0 or stopped or self.closing):
            # Else the parser may have stopped for good, or wait for a body, which ``RequestBody`` reads.
            self._parser = parser
        self.expects_continue = expects and length != 0 and protocol == b"HTTP/1.1"
        return request

    def _parse(self, parser: HttpRequestParser, head: bytes) -> bool:
        """Returns whether the head asks for an upgrade."""
        self._url = b""
        self._headers: Headers = []
        self._special: Headers = []
        try:
            parser.feed_data(head)
        except HttpParserUpgrade:
            return True
        return False

    def _protocol(self, parser: HttpRequestParser, head: bytes) -> bytes | None:
        """The version of the request that was parsed; None if its line is not that of the head."""
        line = b"%b %b HTTP/1.1\r\n" % (parser.get_method(), self._url)
        if head.startswith(line):
            return b"HTTP/1.1"
        if head.startswith(line.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")):
            return b"HTTP/1.0"
        return None

    # From the parser.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if value.endswith(_BLANKS):
            value = value.rstrip(b" \t")
        if name in _SPECIAL:
            self._special.append((name, value))
        else:
            self._headers.append((name, value))


def _as_llhttp_knows_it(head: bytes) -> bytes | None:
    """The head with a method and version that llhttp accepts. None if these are not why llhttp refused it.

    A higher minor version is processed as 1.1 (RFC 9110 §6.2). The framing of a request does not depend on its method.
    """
    line = _REQUEST_LINE(head)
    if line is None or line[1] not in METHODS:
        return None
    method = b"POST" if line[1] in REGISTERED_BESIDES else line[1]
    minor = b"1" if line[3] > b"1" else line[3]
    if method == line[1] and minor == line[3]:
        return None
    return b"%b%b%b%b" % (method, line[2], minor, head[line.end(3) :])


def _refused(head: bytes, error: HttpParserError) -> Refused:
    unknown = isinstance(error, HttpParserInvalidMethodError) or str(error).startswith("Invalid method")
    if not unknown:
        return Refused(400, f"The request is malformed: {error}.")
    if _REQUEST_LINE(head) and not NO_LINE(head):
        return Refused(501, "The method is not known.")
    return Refused(400, "The request line is malformed.")


def _checked_authority(authority: bytes | None, protocol: bytes) -> bytes:
    if authority is None:
        if protocol == b"HTTP/1.1":
            raise Refused(400, "The Host is missing.")
        return b""
    check_authority(authority)
    return authority


def _names_websocket(headers: Headers) -> bool:
    return [value.lower() for name, value in headers if name == b"upgrade"] == [b"websocket"]
