# Compiled: see docs/decisions/compiled.md
"""Writing answers: the head, and a body framed as the client's version allows (RFC 9112 §6 and §7.1)."""

from __future__ import annotations

from typing import Any, Final, cast

from apigw.wire.date import Dates
from apigw.wire.headers import Headers
from apigw.wire.http1.states import BODILESS, CHUNKED, PLAIN, SHUT, SILENT
from apigw.wire.http1.write_head import add_lines
from apigw.wire.request import BODYLESS_STATUS, Request, reason_of

COALESCE: Final = 16 * 1024
"""Pieces up to this size are joined into one write."""


class AnswerWriter:
    """Writes the answers of one connection, one after the other."""

    def __init__(self, dates: Dates) -> None:
        self.state = SILENT
        self._dates = dates
        self.transport: Any = None
        self._out: list[bytes] = []

    def begin(self, request: Request, status: int, reason: bytes, headers: Headers) -> bool:
        """Begin the head, which ``end_head`` completes. Returns whether the body ends only with the connection."""
        framed = self._head(status, reason, headers)
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            self._enter(BODILESS)
        elif framed:
            self._enter(PLAIN)
        elif request.clientproto == b"HTTP/1.1":
            self._enter(CHUNKED)
            self._out.append(b"\r\ntransfer-encoding: chunked")
        else:
            self._enter(PLAIN)
            return True
        return False

    def whole(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        """Write a complete answer, with a Content-Length and a Date if it has none."""
        framed = self._head(status, reason, headers)
        out = self._out
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            body = b""
        elif not framed:
            out.append(b"\r\ncontent-length: %d" % len(body))
        out.append(b"\r\n\r\n")
        out.append(body)
        self._out = []
        self.transport.write(b"".join(out))

    def end_head(self, last: bool) -> None:
        """Complete the head. ``last``: the connection is closed after this answer."""
        self._out.append(b"\r\nconnection: close\r\n\r\n" if last else b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Add a piece of the body. The next ``flush`` or ``end`` writes it, if not this call."""
        state = self.state
        if state == BODILESS or not data:
            return
        size = len(data)
        if state == CHUNKED:
            self._out.append(b"%x\r\n" % size)
        if size > COALESCE:
            self.flush()
            self.transport.write(data)
        else:
            self._out.append(data)
        if state == CHUNKED:
            self._out.append(b"\r\n")

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.transport.write(b"".join(out))

    def end(self, trailers: Headers | None = None) -> None:
        """Complete the body, and write what is left of it. Only a chunked body can have trailers."""
        if self.state == CHUNKED:
            if trailers is None:
                self._out.append(b"0\r\n\r\n")
            else:
                lines = [b"%b: %b\r\n" % (name, value) for name, value in trailers]
                self._out += (b"0\r\n", *lines, b"\r\n")
        self.flush()
        self._enter(SILENT)

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a complete answer to a malformed request. The connection is closed after it."""
        self._enter(PLAIN)
        self._head(status, reason_of(status), headers)
        self.end_head(True)
        self._out.append(body)
        self.end()

    def switch_protocols(self, headers: Headers) -> None:
        """Write 101. What follows it on the connection is not HTTP."""
        self._head(101, b"Switching Protocols", headers)
        self.end_head(False)
        self.flush()
        self._enter(SHUT)

    def shut(self) -> None:
        """Write nothing more. What was not flushed is dropped."""
        self._out.clear()
        self._enter(SHUT)

    def _head(self, status: int, reason: bytes, headers: Headers) -> bool:
        """Add the status line and the fields, with a Date if they have none. Returns whether they have a length."""
        framed = dated = False
        out = self._out
        out.append(b"HTTP/1.1 %d %b" % (status, reason))
        for pair in cast("list[tuple[bytes, ...]]", headers):  # when compiled, iterating over pairs would unpack each
            # Lengths are compared first, because they nearly always differ.
            length = len(pair[0])
            if length == 14:
                framed = framed or pair[0] == b"content-length"
            elif length == 4:
                dated = dated or pair[0] == b"date"
        add_lines(out, headers)
        if not dated:
            out.append(self._dates.line())
        return framed

    def _enter(self, state: int) -> None:
        self.state = state
