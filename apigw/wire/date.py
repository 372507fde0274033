# Compiled: see docs/decisions/compiled.md
"""The ``Date`` of answers (RFC 9110 §6.6.1), added to those that have none."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

from apigw.wire.headers import Header, Headers


class Dates:
    """The current time as a field or a line, formatted once a second. ``now`` is Unix time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = -1
        self._value = b""
        self._line = b""

    def line(self) -> bytes:
        """The line for HTTP/1.1, after the end of the one before it."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode("ascii")
            self._line = b"\r\ndate: %b" % self._value
        return self._line

    def field(self) -> Header:
        self.line()
        return b"date", self._value

    def dated(self, headers: Headers) -> Headers:
        """An answer's fields, with a ``Date`` at the end unless there is one."""
        for name, _ in headers:
            if name == b"date":
                return headers
        return [*headers, self.field()]
