# Compiled: see docs/decisions/compiled.md
"""The Date of an answer (RFC 9110 §6.6.1)."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

from apigw.wire.headers import Header, Headers


class Dates:
    """Gives the current time as a field, which is made once a second. ``now`` is Unix time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = -1
        self._field: Header = (b"date", b"")

    def field(self) -> Header:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._field = (b"date", formatdate(second, usegmt=True).encode("ascii"))
        return self._field

    def dated(self, headers: Headers) -> Headers:
        """An answer's fields, with a Date behind them unless one is there: whoever made the answer knows better."""
        for header in headers:
            name = header[0]
            if len(name) == 4 and name == b"date":
                return headers
        return [*headers, self.field()]
