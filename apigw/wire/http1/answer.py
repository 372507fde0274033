# Compiled: see docs/decisions/compiled.md
"""Writing answers: the head, and a body framed as the client's version allows (RFC 9112 §6 and §7.1)."""

from __future__ import annotations

from typing import Any

from apigw.wire.date import Dates
from apigw.wire.headers import Headers
from apigw.wire.http1.states import BODILESS, CHUNKED, PLAIN, SHUT, SILENT
from apigw.wire.request import BODYLESS_STATUS, Request, reason_of

COALESCE = 16 * 1024
"""Pieces up to this size are joined into one write."""


class AnswerWriter:
    """Writes the answers of one connection, one after the other."""

    def __init__(self, dates: Dates) -> None:
        self.state = SILENT
        self._dates = dates
        self.transport: Any = None
        self._out: list[bytes] = []

    def begin(self, request: Request, status: int, reason: bytes, headers: Headers) -> bool:
        """The head, but for its end: ``end_head`` follows. Whether the body ends only with the connection."""
        framed = self._head(status, reason, headers)
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            self._enter(BODILESS)
        elif framed:
            self._enter(PLAIN)
        elif request.clientproto == b"HTTP/1.1":
            self._enter(CHUNKED)
            self._out.append(b"transfer-encoding: chunked\r\n")
        else:
            self._enter(PLAIN)
            return True
        return False

    def whole(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        """An answer of which all is there, framed by its length, and with a Date if it has none."""
        framed = self._head(status, reason, headers)
        out = self._out
        if request.method == b"HEAD" or status in BODYLESS_STATUS:
            body = b""
        elif not framed:
            out.append(b"content-length: %d\r\n" % len(body))
        out.append(b"\r\n")
        out.append(body)
        self._out = []
        self.transport.write(b"".join(out))

    def end_head(self, last: bool) -> None:
        """``last``: the connection is closed behind this answer."""
        self._out.append(b"connection: close\r\n\r\n" if last else b"\r\n")

    def send(self, data: bytes) -> None:
        """A piece of the body, which goes out with the next ``flush`` or ``end``."""
        state = self.state
        if state == BODILESS or not data:
            return
        if state == CHUNKED:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        elif len(data) > COALESCE:
            self.flush()
            self.transport.write(data)
        else:
            self._out.append(data)

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.transport.write(b"".join(out))

    def end(self) -> None:
        """The answer is complete."""
        if self.state == CHUNKED:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._enter(SILENT)

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer to what was no request, behind which the connection is closed."""
        self._enter(PLAIN)
        self._head(status, reason_of(status), headers)
        self.end_head(True)
        self._out.append(body)
        self.end()

    def switch_protocols(self, headers: Headers) -> None:
        """101, behind which the connection speaks something else."""
        self._head(101, b"Switching Protocols", headers)
        self.end_head(False)
        self.flush()
        self._enter(SHUT)

    def shut(self) -> None:
        """Nothing more is written. What was not flushed is forgotten."""
        self._out.clear()
        self._enter(SHUT)

    def _head(self, status: int, reason: bytes, headers: Headers) -> bool:
        """The status line and the fields, with a Date if they have none. Whether they say the length of the body."""
        framed = dated = False
        out = self._out
        out.append(b"HTTP/1.1 %d %b\r\n" % (status, reason))
        for name, value in headers:
            # Lengths first, as they differ nearly always.
            length = len(name)
            if length == 14:
                framed = framed or name == b"content-length"
            elif length == 4:
                dated = dated or name == b"date"
            # Compiled, four of these take half as long as one tuple of them.
            out.append(name)
            out.append(b": ")
            out.append(value)
            out.append(b"\r\n")
        if not dated:
            out.append(self._dates.line())
        return framed

    def _enter(self, state: int) -> None:
        self.state = state
