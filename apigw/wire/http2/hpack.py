"""Field blocks: HPACK (RFC 7541).

The dynamic table and the Huffman code are those of the ``hpack`` library. The loops are ours, for two reasons. A block
beyond the limit is decoded to its end but not kept, so that the connection can go on. And an indexed field costs one
look-up. The encoder uses the static table only: it has no state and no search, and there is no dynamic table whose
content an attacker could learn from sizes (RFC 7541 §7.1).
"""

from __future__ import annotations

from functools import lru_cache

from hpack.exceptions import HPACKDecodingError, InvalidTableIndexError, InvalidTableSizeError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from apigw.wire.headers import Header, Headers

TABLE_SIZE = HeaderTable.DEFAULT_SIZE
LINE_OVERHEAD = 4
"""Bytes that a field takes in an HTTP/1.1 head besides its name and value. Both protocols have the same limit."""
CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Connection-specific fields, which make an HTTP/2 message malformed (RFC 9113 §8.2.2)."""

LONGEST_REMEMBERED = 64
"""Maximum bytes of a name that is cached. Services choose the names, so the cache must be bounded."""

EMPTY_TABLE = b"\x20"
"""Sent once, in front of the first block: sets the dynamic table of our encoder to size 0 (RFC 7541 §6.3)."""

_STATIC = (None, *HeaderTable.STATIC_TABLE)
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_STATUS = {
    int(value): bytes((0x80 | index,))
    for index, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1)
    if name == b":status"
}
_START = {
    (name, value): bytes((0x80 | index,))
    for index, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1)
    if name in (b":method", b":scheme", b":path")
}
_SHORT = tuple(bytes((length,)) for length in range(0x7F))


class FieldDecoder:
    """Decodes the field blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._table = HeaderTable()

    def decode(self, block: bytes, limit: int) -> tuple[Headers, int]:
        """Returns the fields, and the bytes they would take in an HTTP/1.1 head. Those beyond ``limit`` are not kept.

        Raises ``hpack.exceptions.HPACKError``, which is a connection error.
        """
        table = self._table
        fields: Headers = []
        size = 0
        at = 0
        end = len(block)
        while at < end:
            first = block[at]
            if first & 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                else:
                    at += 1
                field = _STATIC[index] if index <= 61 else table.get_by_index(index)
                if field is None:
                    raise InvalidTableIndexError("Index 0")
            elif first & 0xE0 == 0x20:
                if size:
                    raise HPACKDecodingError("A table size update after a field")
                table_size, at = _integer(block, at, 0x1F)
                if table_size > TABLE_SIZE:
                    raise InvalidTableSizeError("The table is larger than was allowed")
                table.maxsize = table_size
                continue
            else:
                index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
                if index:
                    name = table.get_by_index(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = (name, value)
                if first & 0x40:
                    table.add(name, value)
            if size <= limit:
                fields.append(field)
            size += len(field[0]) + len(field[1]) + LINE_OVERHEAD
        return fields, size


def encode_head(status: int, headers: Headers) -> bytes:
    """The field block of a response. Connection-specific fields are left out."""
    return (_STATUS.get(status) or b"\x08\x03%d" % status) + _encode(headers)


def encode_trailers(fields: Headers) -> bytes:
    """The field block of trailers. Connection-specific fields are left out."""
    return _encode(fields)


def _encode(headers: Headers) -> bytes:
    parts: list[bytes] = []
    for name, value in headers:
        prefix = _usual_name(name) if len(name) <= LONGEST_REMEMBERED else _literal_name(name)
        if prefix:
            length = len(value)
            parts += (prefix, _SHORT[length] if length < 0x7F else _length(length), value)
    return b"".join(parts)


def encode_request(method: bytes, scheme: bytes, authority: bytes, target: bytes, headers: Headers) -> bytes:
    """The field block of a request. Connection-specific fields are left out."""
    start = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", target)]
    return b"".join(_START.get(field) or _literal(field) for field in start) + _encode(headers)


def _literal(field: Header) -> bytes:
    return _usual_name(field[0]) + _length(len(field[1])) + field[1]


@lru_cache(maxsize=1024)
def _usual_name(name: bytes) -> bytes:
    return _literal_name(name)


def _literal_name(name: bytes) -> bytes:
    """A literal field without indexing, up to its value (RFC 7541 §6.2.2). Empty for a field that is not sent."""
    name = name.lower()
    if name in CONNECTION_SPECIFIC:
        return b""
    index = _STATIC_NAMES.get(name)
    if index is None:
        return b"\x00" + _length(len(name)) + name
    return bytes((index,)) if index < 0x0F else bytes((0x0F, index - 0x0F))


def _length(length: int) -> bytes:
    """A string's length, without Huffman code: an integer with a prefix of seven bits (RFC 7541 §5.1)."""
    if length < 0x7F:
        return _SHORT[length]
    length -= 0x7F
    encoded = bytearray((0x7F,))
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Decode an integer at ``at`` whose prefix is ``mask``: at most five bytes. Returns it, and the index behind it."""
    number = block[at] & mask
    at += 1
    if number < mask:
        return number, at
    for shift, byte in zip((0, 7, 14, 21), block[at : at + 4], strict=False):
        number += (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("An integer is cut short, or too long")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(block):
        raise HPACKDecodingError("A field is cut short")
    encoded = block[at] & 0x80
    length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise HPACKDecodingError("A string is cut short")
    string = block[at:end]
    return (decode_huffman(string) if encoded else string), end
