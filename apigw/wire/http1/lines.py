# Compiled: see docs/decisions/compiled.md
"""The lines of usual heads, each judged once and then known by its bytes.

Messages repeat the lines of earlier ones, from whomever they are. What a line means depends on its bytes alone, so that
one memory serves all connections. Here are only lines that can be read in one way. A head with any other line goes as a
whole to llhttp, which is what decides whether it is valid.
"""

from __future__ import annotations

import re
from typing import Any, Final, final

from apigw.wire.headers import HOP_BY_HOP, SECRET, TOKEN
from apigw.wire.interfaces import EVENT_STREAM

END_OF_HEAD: Final = b"\r\n\r\n"

UNUSUAL: Final = 0
"""For llhttp: of framing beyond a length, of an upgrade, folded, or malformed."""
FIELD: Final = 1
HOST: Final = 2
LENGTH: Final = 3
CONTENT_TYPE: Final = 4
CLOSE: Final = 5
"""``Connection: close``."""
OF_HOP: Final = 6
"""Says nothing and goes nowhere: ``Connection: keep-alive``, and ``Keep-Alive``."""

MOST: Final = 4096
"""Lines that are remembered. When there are more, all are forgotten; what is usual is soon known again."""
LONGEST: Final = 128
"""Bytes of a line that may be remembered. With its parts it then takes 0.5 KiB, and all of them 2 MiB."""

LONGEST_NAME: Final = 64
"""Bytes of a name that is remembered. So are as many names as lines."""

_TEXT: Final = bytes(byte if byte == 0x09 or (byte >= 0x20 and byte != 0x7F) else 0x20 for byte in range(256))
"""Changes no byte that a line may have (RFC 9110 §5.5), and every other."""
_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,17}").fullmatch
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?").fullmatch
_UPGRADE_REQUIRED: Final = 426


def cut(data: bytes, searched: int) -> tuple[bytes, bytes, bytes]:
    """The head at the front of ``data``, its end, and what is behind it; the last two are empty if it is not complete.

    In the first ``searched`` bytes there is no end of a head.
    """
    if searched < len(END_OF_HEAD):
        return data.partition(END_OF_HEAD)  # ``find`` takes 500 instructions more, for its arguments
    at = data.find(END_OF_HEAD, searched - 3)
    return (data, b"", b"") if at < 0 else (data[:at], END_OF_HEAD, data[at + 4 :])


@final
class Line:
    """What a field's line means. ``field`` is the pair of its name, in lower case, and its value."""

    def __init__(self, kind: int, name: bytes = b"", value: bytes = b"", is_secret: bool = False) -> None:
        self.text = b""
        """The line itself, of one that may be remembered."""
        self.kind = kind
        self.field: Any = (name, value)
        self.value = value
        self.is_secret = is_secret
        self.length = int(value) if kind == LENGTH else 0
        self.event_stream = kind == CONTENT_TYPE and value.startswith(EVENT_STREAM)


_unusual: Final = Line(UNUSUAL)


@final
class StatusLine:
    """What a status line means; ``status`` is 0 for an unusual one."""

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason


@final
class _Name:
    """A field's name in lower case, and what the fields of that name are; ``UNUSUAL`` for what is no name."""

    def __init__(self, name: bytes) -> None:
        self.name = name.lower()
        self.kind = _KINDS.get(self.name, FIELD) if TOKEN(name) else UNUSUAL
        self.is_secret = SECRET(self.name) is not None


_KINDS: Final = {
    b"host": HOST,
    b"content-type": CONTENT_TYPE,
    b"content-length": LENGTH,
    b"keep-alive": OF_HOP,
    b"expect": UNUSUAL,
    b"close": UNUSUAL,  # the one field that ``Connection: close`` names, besides
    **dict.fromkeys(HOP_BY_HOP - {b"keep-alive", b"connection"}, UNUSUAL),
    b"connection": CLOSE,
}


class _Names(dict[bytes, _Name]):
    def __missing__(self, written: bytes) -> _Name:
        name = _Name(written)
        if len(written) <= LONGEST_NAME:
            if len(self) >= MOST:
                self.clear()
            self[written] = name
        return name


_names: Final[dict[bytes, _Name]] = _Names()


def judged(line: bytes) -> Line:
    """What a line means, whose length or secret keeps it from being remembered."""
    at = line.find(b":")
    if at < 0:
        return _unusual
    name = _names[line[:at]]
    kind = name.kind
    value = line[at + 1 :].strip(b" \t")
    # An empty value is left to llhttp.
    if kind == UNUSUAL or not value or value.translate(_TEXT) != value:
        return _unusual
    if kind == LENGTH and not _NUMBER(value):
        return _unusual
    if kind == CLOSE:
        option = value.lower()
        if option == b"keep-alive":
            kind = OF_HOP
        elif option != b"close":
            return _unusual
    return Line(kind, name.name, value, name.is_secret)


class _Lines(dict[bytes, Line]):
    def __missing__(self, line: bytes) -> Line:
        found = judged(line)
        if found.kind != UNUSUAL and not found.is_secret:
            if len(self) >= MOST:
                self.clear()
            self[line] = found
            found.text = line
        return found


class _StatusLines(dict[bytes, StatusLine]):
    def __missing__(self, line: bytes) -> StatusLine:
        match = _STATUS(line)
        status = 0 if match is None else int(match[1])
        if match is None or status == _UPGRADE_REQUIRED:
            return StatusLine(0, b"")
        found = StatusLine(status, match[2] or b"")
        if len(line) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[line] = found
        return found


LINES: Final[dict[bytes, Line]] = _Lines()
"""A field's line of up to ``LONGEST`` bytes, without its end, to what it means. Longer ones are ``judged``."""
STATUS_LINES: Final[dict[bytes, StatusLine]] = _StatusLines()


@final
class LinesBefore:
    """The lines of the message before, at their places.

    Most lines of a message are where they were in the last one, and to compare one takes a fifth of looking it up. What
    is not to be remembered is not kept here either.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def line(self, place: int, text: bytes) -> Line:
        """What the line ``text`` means, which is at this place. Places are asked for one after the other."""
        lines = self._lines
        if place == len(lines):
            lines.append(_unusual)
        line = lines[place]
        if line.text != text:
            line = LINES[text] if len(text) <= LONGEST else judged(text)
            if line.text:
                lines[place] = line
        return line
