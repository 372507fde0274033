# Compiled: see docs/decisions/compiled.md
"""The little of Protocol Buffers that spans need: numbers, texts, and attributes of OpenTelemetry."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

MOST_TEXT: Final = 1024
"""Bytes of a text from elsewhere, such as a path, that is sent."""
SHORT: Final = 128

_BYTES: Final = tuple(bytes((number,)) for number in range(256))


def varint(number: int) -> bytes:
    """A number that is not negative, seven bits in each byte."""
    rest: i64 = number
    if rest < 128:
        return _BYTES[rest]
    if rest < 1 << 14:  # nearly every length
        return _BYTES[rest & 127 | 128] + _BYTES[rest >> 7]
    out: list[bytes] = []
    while rest > 127:
        out.append(_BYTES[rest & 127 | 128])
        rest >>= 7
    out.append(_BYTES[rest])
    return b"".join(out)


def length_delimited(tag: bytes, content: bytes) -> bytes:
    """A text, bytes or a message. ``tag`` is the field's number and type, as one byte."""
    return b"".join((tag, varint(len(content)), content))


def utf8(value: bytes) -> bytes:
    """Text that is valid: a collector refuses a whole batch for one that is not."""
    return value if value.isascii() else value.decode("utf-8", "replace").encode("utf-8")


def text(tag: bytes, key: bytes, value: bytes) -> bytes:
    """An attribute with a text. ``tag`` is that of the field ``attributes``, ``key`` is made by ``key_of``."""
    size: i64 = len(value)
    whole: i64 = size + 4 + len(key)
    if whole < 128:
        return b"".join((tag, _BYTES[whole], key, b"\x12", _BYTES[size + 2], b"\x0a", _BYTES[size], value))
    return length_delimited(tag, key + length_delimited(b"\x12", length_delimited(b"\x0a", value)))


@final
class Texts:
    """The attribute ``name`` with texts. All but the text of those up to ``SHORT`` bytes is encoded once."""

    def __init__(self, tag: bytes, name: str) -> None:
        self._tag = tag
        self._key = key_of(name)
        self._before = [text(tag, self._key, b"x" * size)[: -size or None] for size in range(SHORT + 1)]

    def encode(self, value: bytes) -> bytes:
        """With a text from elsewhere, which is cut at ``MOST_TEXT`` bytes."""
        size = len(value)
        if size <= SHORT and value.isascii():
            return self._before[size] + value
        return text(self._tag, self._key, utf8(value[:MOST_TEXT]))


def integer(tag: bytes, key: bytes, value: int) -> bytes:
    """An attribute with a number that is not negative."""
    return length_delimited(tag, key + length_delimited(b"\x12", b"\x18" + varint(value)))


def key_of(name: str) -> bytes:
    """The name of an attribute."""
    return length_delimited(b"\x0a", name.encode("ascii"))
