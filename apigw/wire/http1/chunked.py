# Compiled: see docs/decisions/compiled.md
"""Decoder for the chunked coding of a request's body (RFC 9112 §7.1): strict, and incremental."""

from __future__ import annotations

import re
from typing import Final

from apigw.wire.errors import Refused
from apigw.wire.headers import NO_LINE, Headers

MAX_SIZE_LINE: Final = 1024
"""Maximum bytes of a chunk's size and extensions, which are ignored (RFC 9112 §7.1.1; CVE-2023-39326)."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
# No white space: §7.1.1 calls it bad, and parsers disagree on it.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*\r\n"
).match
_TRAILER_LINE: Final = re.compile(b"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)\r\n").match

_SIZE, _DATA, _TRAILERS, _OVER = range(4)


class ChunkedBody:
    """Decodes one body, with ``trailers`` of at most ``max_size`` bytes and ``max_count`` fields."""

    def __init__(self, max_size: int, max_count: int) -> None:
        self._state = _SIZE
        self._left = 0  # bytes of a chunk's data and the CRLF behind it
        self._held = b""  # the beginning of a line
        self._searched = 0  # bytes of it that do not contain the line's end
        self._trailers_left = max_size
        self._fields_left = max_count
        self.trailers: Headers = []

    @property
    def complete(self) -> bool:
        return self._state == _OVER

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Split ``data`` into decoded bytes of the body and bytes behind the message. Raises ``Refused``."""
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end and self._state != _OVER:
            if self._state == _DATA:
                at = self._read_data(data, at, pieces)
            else:
                after = self._read_line(data, at)
                if after < 0:
                    self._held = data[at:]
                    break
                at = after
        rest = data[at:] if self._state == _OVER else b""
        return b"".join(pieces), rest

    def _read_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            at += len(piece)
        if self._left <= 2:
            ending = data[at : at + self._left]
            if ending != b"\r\n"[2 - self._left :][: len(ending)]:
                raise Refused(400, "A chunk does not end where its size says.")
            self._left -= len(ending)
            at += len(ending)
            if not self._left:
                self._state = _SIZE
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read one line. Returns the index behind it, or -1 if it is incomplete."""
        most = MAX_SIZE_LINE if self._state == _SIZE else self._trailers_left
        start = at + max(0, self._searched - 1)
        end = data.find(b"\r\n", start, at + most + 2)
        if end < 0:
            if NO_LINE(data, start, at + most + 2):
                raise Refused(400, "A line of the chunked coding is malformed.")
            self._searched = len(data) - at
            if self._searched > most + 1:
                self._too_long()
            return -1
        self._searched = 0
        end += 2
        if self._state == _SIZE:
            line = _SIZE_LINE(data, at, end)
            if line is None:
                raise Refused(400, "The size of a chunk is malformed.")
            size = int(line[1], 16)
            if size:
                self._left = size + 2
                self._state = _DATA
            else:
                self._state = _TRAILERS
        elif end - at == 2:
            self._state = _OVER
        else:
            self._trailers_left -= end - at
            self._fields_left -= 1
            if self._trailers_left < 0 or self._fields_left < 0:
                self._too_long()
            line = _TRAILER_LINE(data, at, end)
            if line is None:
                raise Refused(400, "A trailer is malformed.")
            self.trailers.append((line[1].lower(), line[2].strip(b" \t")))
        return end

    def _too_long(self) -> None:
        if self._state == _SIZE:
            raise Refused(400, "The extensions of a chunk are too long.")
        raise Refused(431, "The trailers are too large, or too many.")
