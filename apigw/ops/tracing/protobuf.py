# Compiled: see docs/decisions/compiled.md
"""The little of Protocol Buffers that spans need: numbers, texts, and attributes of OpenTelemetry."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

MOST_TEXT: Final = 1024
"""Bytes of a text from elsewhere, such as a path, that is sent."""
SHORT: Final = 128
"""Bytes that most of them are shorter than."""
_IS_ASCII: Final = bytes.isascii


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS: Final = [_varint(number) for number in range(1024)]
"""Those of nearly every length."""


def varint(number: i64) -> bytes:
    """A number that is not negative, seven bits in each byte."""
    return _VARINTS[number] if number < 1024 else _varint(number)


BYTES: Final = [bytes((number,)) for number in range(256)]
"""Each byte."""


@final
class Upper:
    """The upper five of the eight bytes of a time in nanoseconds, and what comes ``after`` them.

    Of the others, the lowest is zero, and two are taken from ``BYTES``. To make all eight of a number takes twice as
    long. The upper five are the same for 16.8 ms, the upper four for 4.3 s, and both are remembered.
    """

    def __init__(self, after: bytes = b"") -> None:
        self._after = after
        self._of: i64 = -1
        self._bytes = b""
        self._of_four: i64 = -1
        self._four = b""

    def of(self, ticks: i64) -> bytes:
        """``ticks`` are 256 nanoseconds."""
        of = ticks >> 16
        if of != self._of:
            self._of = of
            if of >> 8 != self._of_four:
                self._of_four = of >> 8
                self._four = int(of >> 8).to_bytes(4, "little") + self._after
            self._bytes = BYTES[of & 255] + self._four
        return self._bytes


def length_delimited(tag: bytes, content: bytes) -> bytes:
    """A text, bytes or a message. ``tag`` is the field's number and type, as one byte."""
    return b"%b%b%b" % (tag, varint(len(content)), content)


def cut(value: bytes) -> bytes:
    """A text that is known to be ASCII, of at most ``MOST_TEXT`` bytes."""
    return value if len(value) <= MOST_TEXT else value[:MOST_TEXT]


def foreign(value: bytes) -> bytes:
    """Any text, cut too. It is made valid: a collector refuses a whole batch for one that is not."""
    value = cut(value)
    return value if _IS_ASCII(value) else value.decode("utf-8", "replace").encode("utf-8")


def text(tag: bytes, key: bytes, value: bytes) -> bytes:
    """An attribute with a text. ``tag`` is that of the field ``attributes``, ``key`` is made by ``key_of``."""
    return length_delimited(tag, key + length_delimited(b"\x12", length_delimited(b"\x0a", value)))


@final
class Texts:
    """The attribute ``name`` with a text: ``before(len(text))``, and the text. An empty one is none."""

    def __init__(self, tag: bytes, name: str) -> None:
        self._tag = tag
        self._key = key_of(name)
        self._before = [b"", *[self._made(size) for size in range(1, SHORT)]]

    def before(self, size: i64) -> bytes:
        """What comes before a text of ``size`` bytes."""
        return self._before[size] if size < SHORT else self._made(size)

    def encode(self, value: bytes) -> bytes:
        """The attribute with a text from elsewhere."""
        value = foreign(value)
        return self.before(len(value)) + value

    def _made(self, size: i64) -> bytes:
        return text(self._tag, self._key, b"x" * size)[:-size]


def integer(tag: bytes, key: bytes, value: int) -> bytes:
    """An attribute with a number that is not negative."""
    return length_delimited(tag, key + length_delimited(b"\x12", b"\x18" + varint(value)))


def key_of(name: str) -> bytes:
    """The name of an attribute."""
    return length_delimited(b"\x0a", name.encode("ascii"))
