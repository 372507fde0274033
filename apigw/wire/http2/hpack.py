"""Field blocks: HPACK, RFC 7541.

The table of a client's fields and the Huffman code are those of the ``hpack`` library. The loops are ours, for two
reasons: a block that is over the limit is read to its end, so that the connection outlives it, but not kept; and a
field that was indexed before costs one look-up. What we send uses the static table alone: no state, no
search, and nothing in a table that an attacker could measure.
"""

from __future__ import annotations

from functools import lru_cache

from hpack.exceptions import HPACKDecodingError, InvalidTableIndexError, InvalidTableSizeError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from apigw.wire.headers import Header, Headers

TABLE_SIZE = HeaderTable.DEFAULT_SIZE
LINE_OVERHEAD = 4
"""What a field takes besides its name and value in an HTTP/1.1 head, where the same limit on size applies."""
CONNECTION_SPECIFIC = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Fields that mean nothing on HTTP/2 and make a message malformed (RFC 9113 §8.2.2)."""

LONGEST_REMEMBERED = 64
"""Bytes of a field's name. Services choose them, and what they choose must not stay in memory."""

EMPTY_TABLE = b"\x20"
"""Said once, in front of the first block: no table is kept for what we send, whatever size the client would allow."""

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
    """Reads the field blocks of one connection, each of which depends on those before it."""

    def __init__(self) -> None:
        self._table = HeaderTable()

    def decode(self, block: bytes, limit: int) -> tuple[Headers, int]:
        """The fields, and the bytes they would take as lines of an HTTP/1.1 head. Those beyond ``limit`` are not kept.

        Raises ``hpack.exceptions.HPACKError``, after which the connection is of no more use.
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
    """The beginning of a literal field that enters no table, up to its value; empty for a field not to be sent."""
    name = name.lower()
    if name in CONNECTION_SPECIFIC:
        return b""
    index = _STATIC_NAMES.get(name)
    if index is None:
        return b"\x00" + _length(len(name)) + name
    return bytes((index,)) if index < 0x0F else bytes((0x0F, index - 0x0F))


def _length(length: int) -> bytes:
    """RFC 7541 §5.1, with a prefix of seven bits."""
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
    """The number at ``at``, its first bits under ``mask``, and where it ends. It takes five bytes at most."""
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
