# Compiled: see docs/decisions/compiled.md
"""The head of an HTTP/1.1 request: RFC 9112, read strictly.

llhttp parses. It is given one head alone and whole, so that the request line that it read can be compared with the
bytes that were sent; whatever it lets through that two programs could read in two ways is refused here.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from apigw.wire.errors import Refused
from apigw.wire.headers import HOP_BY_HOP, NO_LINE, Headers, connection_options
from apigw.wire.methods import METHODS, REGISTERED_BESIDES
from apigw.wire.request import Request, Stream
from apigw.wire.target import check_authority, check_target, split_absolute

_SPECIAL = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
"""Fields that say how to read the message, or that end here: what is left is for whoever is asked."""
_NOT_NAMED_AWAY = frozenset(
    b"close keep-alive upgrade forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip".split()
)
"""Options of ``Connection`` that take away no field. A proxy in front may pass on what its client says there, and a
client could make a request seem to be the proxy's (as CVE-2022-31813)."""
_NO_OPTIONS: frozenset[bytes] = frozenset()
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)( [^ \r\n]+ HTTP/1\.)([0-9])\r\n").match
_IMPOSSIBLE = b"\0"
_BLANKS = (b" ", b"\t")


def check_beginning(data: bytes, searched: int, most: int) -> None:
    """Raises ``Refused`` for the beginning of what cannot become a head, so that nobody waits for its end.

    ``searched`` bytes have been looked at before; a head may have ``most``.
    """
    if NO_LINE(data, max(0, searched - 1), most + 4):
        raise Refused(400, "The request's head contains a control character, a bare CR or a bare LF.")
    if len(data) > most + 3:
        if b"\r\n" in data[:most]:
            raise Refused(431, "The request's headers are too large.")
        raise Refused(414, "The request target is too long.")


class HeadReader:
    """Reads the heads of one connection, one after the other."""

    closing = False
    """Whether the client wants the connection closed after the last request, or cannot keep it."""
    expects_continue = False
    """Whether it waits for ``100 Continue`` before it sends the last request's body."""

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._authority = _IMPOSSIBLE  # that of the last request: nearly always that of the next

    def read(self, stream: Stream, head: bytes, max_count: int) -> Request:
        """The request whose head these bytes are, up to and with its empty line. Raises ``Refused``."""
        renamed = b""
        try:
            upgrade = self._parse(head)
        except HttpParserError as error:
            known = _as_llhttp_knows_it(head)
            if known is None:
                raise _refused(head, error) from None
            renamed, head = head[: head.find(b" ")], known
            self._parser = HttpRequestParser(self)
            try:
                upgrade = self._parse(head)
            except HttpParserError as other:
                raise _refused(head, other) from None
        parser = self._parser
        headers, special = self._headers, self._special
        uri = self._url
        line = b"%b %b HTTP/1.1\r\n" % (method := parser.get_method(), uri)
        if head.startswith(line):
            protocol = b"HTTP/1.1"
        elif head.startswith(line.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")):
            protocol = b"HTTP/1.0"
        else:
            raise Refused(400, "The request line is malformed, or its version neither HTTP/1.0 nor HTTP/1.1.")
        if len(headers) + len(special) > max_count:
            raise Refused(431, "The request has too many headers.")
        if renamed:
            method = renamed

        authority: bytes | None = None
        length: int | None = 0
        options: frozenset[bytes] = _NO_OPTIONS
        expects = stopped = False
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
            elif name == b"proxy-connection":
                stopped = True  # llhttp reads it as Connection, which it is not (RFC 9112 Appendix C.2.2)
        if authority != self._authority:
            self._authority = _checked_authority(authority, protocol)
        if method == b"CONNECT":
            raise Refused(405, "CONNECT is not supported.")
        if not uri.startswith(b"/"):
            if uri == b"*":
                raise Refused(400, "The request target * has no path.")
            uri, named = split_absolute(uri, self._authority)
            self._authority = self._authority or named  # HTTP/1.0 may leave it to the target
        path, query = check_target(uri)
        request = Request(stream, method, uri, path, query, self._authority, headers, protocol, length)
        request.body_complete = length == 0
        self.closing = b"close" in options or protocol == b"HTTP/1.0"
        if options:
            request.drop_headers(options - _NOT_NAMED_AWAY)
        if upgrade and method == b"GET" and length == 0 and protocol == b"HTTP/1.1":
            request.upgrade = _names_websocket(special)
        if upgrade or length != 0 or stopped:
            # It may have stopped for good, or waits for a body, which others read.
            self._parser = HttpRequestParser(self)
        self.expects_continue = expects and length != 0 and protocol == b"HTTP/1.1"
        return request

    def _parse(self, head: bytes) -> bool:
        """Whether it asks for an upgrade."""
        self._url = b""
        self._headers: Headers = []
        self._special: Headers = []
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            return True
        return False

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
    """The same head for llhttp, where it is only the method or the version that is not known to it; else None.

    A higher minor version is taken for 1.1 (RFC 9110 §6.2), and the framing of a request says nothing of its method.
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
