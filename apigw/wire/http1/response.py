# Compiled: see docs/decisions/compiled.md
"""Parses a service's answers, and refuses malformed ones (RFC 9112 §4 to §7).

A head of usual lines, with the body's length among them, is read by them (``lines``); all else is parsed by llhttp.
"""

from __future__ import annotations

import re
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from apigw.wire.errors import UpstreamMalformed
from apigw.wire.headers import FIELD_VALUE, HOP_BY_HOP, KEEP_ALIVE, NO_LINE, Headers, connection_options
from apigw.wire.http1.lines import (
    CLOSE,
    CONTENT_TYPE,
    END_OF_HEAD,
    LENGTH,
    OF_HOP,
    STATUS_LINES,
    UNUSUAL,
    LinesBefore,
    cut,
)
from apigw.wire.interfaces import EVENT_STREAM, MAX_HEAD, MAX_HEADERS, MAX_INTERIM

_SPECIAL: Final = HOP_BY_HOP | {b"content-length", b"content-type"}
_LATER_VERSION: Final = re.compile(rb"HTTP/1\.[2-9] ").match
_USUAL_REASONS: Final = frozenset({b"OK", b""})

# The states of a response. They are plain numbers: compiled code looks up an Enum's members at each use.
UNASKED: Final = 0
WAITING: Final = 1  # for the first byte
HEAD: Final = 2  # a part of it has arrived, or an interim response
BODY: Final = 3
COMPLETE: Final = 4
SWITCHED: Final = 5  # 101: what follows is not HTTP

RESPONSE = {
    UNASKED: {WAITING},
    WAITING: {HEAD, UNASKED},
    HEAD: {BODY, SWITCHED, UNASKED},
    BODY: {COMPLETE, UNASKED},
    COMPLETE: {UNASKED},
    SWITCHED: {UNASKED},
}
"""The transitions. Sending a request enters ``WAITING``, ``forget`` enters ``UNASKED``, ``read`` all others."""


class ResponseReader:
    """Call ``read`` from ``WAITING`` until ``COMPLETE``, then ``forget``.

    From ``BODY`` on, ``status``, ``reason`` and ``headers`` are those of the final response. ``pieces`` are the new
    pieces of its body: the caller takes the list and leaves an empty one.
    """

    def __init__(self) -> None:
        self.state = UNASKED
        self.reusable = True
        """Whether this answer allows another exchange on the connection."""
        self.event_stream = False
        self.close_delimited = False
        """Whether the body is framed by the close of the connection (RFC 9112 §6.3)."""
        self.moved = False
        """Whether the last ``read`` brought bytes of a body. Chunk extensions and trailers do not count."""
        self.version = b"HTTP/1.1"
        """HTTP/1.0 or HTTP/1.1, from the status line."""
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.pieces: list[bytes] = []
        self.trailers: Headers = []
        self.rest = b""
        """Bytes that arrived behind a 101."""
        self._before = LinesBefore()
        self._special: Headers = []
        self._parser: Any = None  # until it is used
        self._parser_ended = False  # the parser takes no further message
        self._parsed = False  # the parser has the head of this message
        self._message_ended = False  # the message ended with its head
        self.bodyless = False
        """Whether the request is a HEAD: its answer has no body."""
        self.upgrade = False
        """Whether the request asks for a WebSocket."""
        self._pending = b""
        self._length = 0
        """The announced bytes of the body; 0 where they are none, or not announced."""
        self._left = 0
        """Bytes of the body that are still to come, past the parser, which would copy them."""
        self._interim = 0
        self._fruitless = 0

    def forget(self) -> None:
        """Reset for the next exchange."""
        self.state = UNASKED
        self.reusable = True
        self.event_stream = self.close_delimited = False
        self._interim = self._fruitless = self._left = 0
        self._pending = b""
        self.pieces.clear()
        if self.trailers:
            self.trailers = []
        if self._parser_ended:
            self._renew_parser()

    def close(self) -> None:
        """Nothing more is read. The parser knows this object: without it, both are freed at once."""
        self._parser = None

    def read(self, data: bytes) -> None:
        """Raises ``UpstreamMalformed``."""
        self.moved = False
        if self.state == BODY:
            self._read_body(data)
            return
        if self.state == WAITING:
            self.state = HEAD
        elif self.state != HEAD:
            raise RuntimeError("no answer is expected")
        self._read_head(data)

    def _read_head(self, data: bytes) -> None:
        searched = len(self._pending)
        if searched:
            data = self._pending + data
            self._pending = b""
        head, end, rest = cut(data, searched)
        if not end or len(head) > MAX_HEAD:
            if len(data) > MAX_HEAD + 3:
                raise UpstreamMalformed("the response's headers are too large")
            if not data.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(data):
                raise UpstreamMalformed("not an HTTP/1.1 response")
            if NO_LINE(data, max(0, searched - 3)):
                raise UpstreamMalformed("a control character, or CR or LF without the other, in the response's headers")
            self._pending = data
            return
        self._parsed = not self._read_usual(head)
        if self._parsed:
            self._parse_head(head + END_OF_HEAD, rest)
        else:
            self._begin(self.status, rest)

    def _read_usual(self, head: bytes) -> bool:
        """Read a head, without its empty line, in which every line is a usual one. Returns whether it is that."""
        lines = head.split(b"\r\n")
        count = len(lines)
        first = STATUS_LINES[lines[0]]
        status = first.status
        if not status or count > MAX_HEADERS:
            return False
        headers: list[Any] = []
        length = content_type = closes = None
        before = self._before
        for number in range(1, count):
            line = before.line(number - 1, lines[number])
            kind = line.kind
            if kind == LENGTH:
                if length is not None:
                    return False
                length = line
            elif kind == CONTENT_TYPE:
                if content_type is not None:
                    return False
                content_type = line
            elif kind == CLOSE:
                closes = line
            elif kind == UNUSUAL:
                return False
            elif kind != OF_HOP:
                headers.append(line.field)
        bodyless = self.bodyless or status == 204 or status == 304
        size = 0
        if length is not None:
            size = length.length
            headers.append(length.field)
        elif not bodyless:
            return False
        if content_type is not None:
            headers.append(content_type.field)
            self.event_stream = content_type.event_stream
        if closes is not None or (status == 204 and size):
            self.reusable = False
        self.version = b"HTTP/1.1"
        self.status = status
        self.reason = first.reason
        self.headers = headers
        self._length = size
        self._message_ended = bodyless or size == 0
        return True

    def _parse_head(self, data: bytes, rest: bytes) -> None:
        """Read any head, by llhttp."""
        persistent = data.startswith(b"HTTP/1.1 ")
        if not persistent and not data.startswith(b"HTTP/1.0 "):
            if _LATER_VERSION(data) is None:
                raise UpstreamMalformed("not an HTTP/1.1 response")
            persistent = True
            data = b"HTTP/1.1" + data[8:]
        self.version = b"HTTP/1.1" if persistent else b"HTTP/1.0"
        self.reason = b""
        self.headers = []
        self._special = []
        self._message_ended = False
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            raise UpstreamMalformed(str(error)) from None
        status: int = parser.get_status_code()
        if data.find(b" \r\n") >= 0 or data.find(b"\t\r\n") >= 0:  # ``in`` first tries the bytes as a number
            self.headers = [(name, value.rstrip(b" \t")) for name, value in self.headers]
            self._special = [(name, value.rstrip(b" \t")) for name, value in self._special]
            self.reason = self.reason.rstrip(b" \t")
        if self.reason not in _USUAL_REASONS and not FIELD_VALUE(self.reason):
            raise UpstreamMalformed("the reason contains a control character")
        if status < 200:
            self._read_interim(status, persistent, rest)
            return
        self._judge(status, persistent)
        self._begin(status, rest)

    def _begin(self, status: int, rest: bytes) -> None:
        """Begin the body, after ``_judge``. ``rest``: bytes behind the head."""
        if self.bodyless:
            # llhttp would read the announced body from the next response.
            self._message_ended = self._parser_ended = True
        self.state = BODY
        self.moved = True
        self.status = status
        if self._message_ended:
            self.state = COMPLETE
            if rest:
                self.reusable = False
        elif self._length and (not self._parsed or len(rest) < self._length):
            self._left = self._length
            self._parser_ended = self._parsed  # it waits for this body
            if rest:
                self._read_announced(rest)
        elif rest:
            self._read_body(rest)

    def _judge(self, status: int, persistent: bool) -> None:
        """Determine the framing (RFC 9112 §6.3), refuse ambiguous heads, and drop hop-by-hop fields.

        What announces a body with a 204, which has none, may send it: it would be the answer to the next request.
        """
        headers = self.headers
        self._length = 0
        if status > 599 or len(headers) > MAX_HEADERS:
            raise UpstreamMalformed("the status or the number of headers is not acceptable")
        framed = chunked = False
        for name, value in self._special:
            if name == b"content-length":
                framed = True
                if len(value) > 1 and value.startswith(b"0"):
                    value = value.lstrip(b"0") or b"0"
                self._length = int(value)
                headers.append((name, value))
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or not persistent or framed:
                    raise UpstreamMalformed("an unknown transfer coding, or chunked twice")
                framed = chunked = True
            elif name == b"content-type":
                headers.append((name, value))
                if value.startswith(EVENT_STREAM):
                    self.event_stream = True
            elif name == b"connection":
                options = connection_options(value)
                if options is not KEEP_ALIVE:
                    headers = [header for header in headers if header[0] not in options]
                    if b"close" in options:
                        self.reusable = False
            elif name == b"proxy-connection":
                # Proxy-Connection has no meaning (RFC 9112 Appendix C.2.2), but llhttp takes no message after it.
                self._parser_ended = True
        if status == 426:
            # The protocols that a 426 requires (RFC 9110 §15.5.22), for a client of HTTP/1.1.
            wanted = [(name, value) for name, value in self._special if name == b"upgrade"]
            headers = [*headers, *wanted, (b"connection", b"upgrade")] if wanted else headers
        self.headers = headers
        if not persistent or (status == 204 and (self._length or chunked)):
            self.reusable = False
        if not framed and not self.bodyless and status not in (204, 304):
            self.close_delimited = True
            self.reusable = False

    def _read_interim(self, status: int, persistent: bool, rest: bytes) -> None:
        """Drop an interim response. 101 accepts an upgrade, and is malformed as an answer to anything else."""
        if status == 101:
            special = self._special
            wanted = [value.lower() for name, value in special if name == b"upgrade"] == [b"websocket"]
            options = [connection_options(value) for name, value in special if name == b"connection"]
            if not self.upgrade or not persistent or not wanted or not any(b"upgrade" in option for option in options):
                raise UpstreamMalformed("an upgrade that was not asked for")
            self.state = SWITCHED
            self.rest = rest
            return
        if status < 100:
            raise UpstreamMalformed("not a status")
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise UpstreamMalformed("too many interim responses")
        self._renew_parser()  # ``Connection: close`` in an interim response would stop llhttp
        if rest:
            self._read_head(rest)

    def _read_body(self, data: bytes) -> None:
        if self._left:
            self._read_announced(data)
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.reusable = False
        except HttpParserError as error:
            if self.state == BODY:
                raise UpstreamMalformed(str(error)) from None
            # Bytes behind a complete response: the connection is not used again.
            self.reusable = False
        if self.trailers and self.state == COMPLETE:
            self._check_trailers()
        if self.moved:
            self._fruitless = 0
        else:
            self._fruitless += len(data)
            if self._fruitless > MAX_HEAD and self.state == BODY:
                raise UpstreamMalformed("the response's trailers are too large")

    def _read_announced(self, data: bytes) -> None:
        """Bytes of a body whose length is announced, past the parser."""
        left = self._left
        if len(data) > left:
            # Bytes behind a complete response: the connection is not used again.
            data = data[:left]
            self.reusable = False
        self.moved = True
        self.pieces.append(data)
        self._left = left - len(data)
        if not self._left:
            self.state = COMPLETE

    def _check_trailers(self) -> None:
        trailers = [(name, value.rstrip(b" \t")) for name, value in self.trailers]
        if len(trailers) > MAX_HEADERS or not all(FIELD_VALUE(value) for _, value in trailers):
            raise UpstreamMalformed("a trailer is malformed, or there are too many")
        self.trailers = trailers

    def _renew_parser(self) -> None:
        self._parser = None
        self._parser_ended = False

    # From llhttp.

    def on_message_begin(self) -> None:
        if self.state != HEAD:
            self.reusable = False

    def on_status(self, reason: bytes) -> None:
        if self.state == HEAD:  # else it belongs to a second message, which was not requested
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self.state == HEAD:
            if name in _SPECIAL:
                self._special.append((name, value))
            else:
                self.headers.append((name, value))
        elif self.state == BODY:  # else it belongs to a second message, which was not requested
            self.trailers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.moved = True
        if self.state == BODY:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        if self.state == BODY:
            self.state = COMPLETE
        else:
            self._message_ended = True
