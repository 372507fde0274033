# Compiled: see docs/decisions/compiled.md
"""The Date of an answer (RFC 9110 §6.6.1), which is added where there is none: whoever made the answer knows better."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

from apigw.wire.headers import Header, Headers


class Dates:
    """Gives the current time as a field or a line, which are made once a second. ``now`` is Unix time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = -1
        self._value = b""
        self._line = b""

    def line(self) -> bytes:
        """For HTTP/1.1."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode("ascii")
            self._line = b"date: %b\r\n" % self._value
        return self._line

    def field(self) -> Header:
        self.line()
        return b"date", self._value

    def dated(self, headers: Headers) -> Headers:
        """An answer's fields, with a Date behind them unless one is there."""
        for name, _ in headers:
            if name == b"date":
                return headers
        return [*headers, self.field()]
