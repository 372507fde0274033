# Compiled: see docs/decisions/compiled.md
"""Field blocks: HPACK (RFC 7541).

The decoder reads a block beyond the limit to its end but does not keep it, so that the connection can go on. The
encoder uses the static table only: it has no state and no search, and there is no dynamic table whose content an
attacker could learn from sizes (RFC 7541 §7.1). docs/decisions/hpack.md says why it is not the ``hpack`` library.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.wire.headers import SECRET, Headers
from apigw.wire.http2.field import CONNECTION_SPECIFIC, Field, kind_of
from apigw.wire.http2.frames import Code, ConnectionFault
from apigw.wire.http2.hpack_tables import EMITS, ENDINGS, NEXT, STATIC, TRANSITIONS

TABLE_SIZE: Final = 4096
"""Bytes of the dynamic table, by default (RFC 9113 §6.5.2). The peer's encoder may use less."""
ENTRY_OVERHEAD: Final = 32
"""RFC 7541 §4.1."""
MOST_ENTRIES: Final = 128
"""``TABLE_SIZE`` has room for so many empty ones. A power of two."""
LONGEST_REMEMBERED: Final = 64
"""Maximum bytes of a name, or a coded string, that is cached. Others choose them, so the caches must be bounded."""
MOST_REMEMBERED: Final = 1024
"""Names and strings that are cached. The names of a gateway's services are far fewer."""
EMPTY_TABLE: Final = b"\x20"
"""Sent once, in front of the first block: sets the dynamic table of our encoder to size 0 (RFC 7541 §6.3)."""

_STATIC: Final = [Field(name, value, kind_of(name)) for name, value in STATIC]
_FIRST_DYNAMIC: Final = 62
_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(STATIC, 1)))}
_STATUS: Final = {
    int(value): bytes((0x80 | index,)) for index, (name, value) in enumerate(STATIC, 1) if name == b":status"
}
_METHODS: Final = {b"GET": b"\x82", b"POST": b"\x83"}
_SCHEMES: Final = {b"http": b"\x86", b"https": b"\x87"}
_PREFIXES: Final[dict[bytes, bytes]] = {}
"""A cache of ``_prefix``."""
_DECODED: Final[dict[bytes, bytes]] = {}
"""A cache of ``_huffman``."""
_SHORT: Final = [bytes((length,)) for length in range(0x7F)]


def fault(reason: str) -> ConnectionFault:
    return ConnectionFault(Code.COMPRESSION_ERROR, reason)


@final
class FieldDecoder:
    """Decodes the field blocks of one connection, in their order."""

    def __init__(self) -> None:
        # The dynamic table is a ring: ``_last`` is the place of the newest entry, older ones are before it.
        self._ring: list[Field | None] = [None] * MOST_ENTRIES
        self._last: i64 = 0
        self._count: i64 = 0
        self._size: i64 = 0
        self._most: i64 = TABLE_SIZE

    @property
    def table(self) -> Headers:
        """The dynamic table, newest entry first."""
        return [self._entry(_FIRST_DYNAMIC + at).pair for at in range(int(self._count))]

    @property
    def table_size(self) -> int:
        """RFC 7541 §4.1."""
        return int(self._size)

    def decode(self, block: bytes, limit: int) -> tuple[list[Field], int]:
        """Returns the fields, and the bytes they would take in an HTTP/1.1 head. Those beyond ``limit`` are not kept.

        Raises ``ConnectionFault``.
        """
        fields: list[Field] = []
        size = 0
        at: i64 = 0
        end: i64 = len(block)
        while at < end:
            first: i64 = block[at]
            if first >= 0x80:
                index = first & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = _integer(block, at - 1, 0x7F)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:
                if size:
                    raise fault("A table size update after a field.")
                table_size, at = _integer(block, at, 0x1F)
                if table_size > TABLE_SIZE:
                    raise fault("The table is larger than was allowed.")
                self._most = table_size
                self._evict(table_size)
                continue
            else:
                index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
                if index:
                    named = self._entry(index)
                    name, kind = named.name, named.named
                else:
                    name, at = _string(block, at)
                    kind = kind_of(name)
                value, at = _string(block, at, name if first < 0x10 else b"")
                field = Field(name, value, kind)
                if first & 0x40:
                    self._add(field)
            if size <= limit:
                fields.append(field)
            size += field.size
        return fields, size

    def _entry(self, index: i64) -> Field:
        if index < _FIRST_DYNAMIC:
            if not index:
                raise fault("Index 0.")
            return _STATIC[index - 1]
        index -= _FIRST_DYNAMIC
        if index >= self._count:
            raise fault("An index beyond the table.")
        field = self._ring[(self._last - index) & (MOST_ENTRIES - 1)]
        assert field is not None
        return field

    def _add(self, field: Field) -> None:
        """A larger field than the table empties it, and is not kept (RFC 7541 §4.4)."""
        size: i64 = len(field.name) + len(field.value) + ENTRY_OVERHEAD
        self._evict(self._most - size)
        if size <= self._most:
            self._last = (self._last + 1) & (MOST_ENTRIES - 1)
            self._ring[self._last] = field
            self._count += 1
            self._size += size

    def _evict(self, most: i64) -> None:
        """Remove the oldest entries until at most ``most`` bytes are left."""
        while self._size > most and self._count:
            self._count -= 1
            place: i64 = (self._last - self._count) & (MOST_ENTRIES - 1)
            field = self._ring[place]
            assert field is not None
            self._size -= len(field.name) + len(field.value) + ENTRY_OVERHEAD
            self._ring[place] = None


def encode_head(status: int, headers: Headers) -> bytes:
    """The field block of a response. Connection-specific fields are left out."""
    return _encode([_STATUS.get(status) or b"\x08\x03%d" % status], headers)


def encode_request(method: bytes, scheme: bytes, authority: bytes, target: bytes, headers: Headers) -> bytes:
    """The field block of a request. Connection-specific fields are left out."""
    parts = [
        _METHODS.get(method) or b"\x02" + _string_of(method),
        _SCHEMES.get(scheme) or b"\x06" + _string_of(scheme),
        b"\x01",
        _length(len(authority)),
        authority,
        b"\x04",
        _length(len(target)),
        target,
    ]
    return _encode(parts, headers)


def size_of(fields: Headers) -> int:
    """The size of fields as MAX_HEADER_LIST_SIZE counts it (RFC 9113 §6.5.2): 32 bytes more for each."""
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + 32
    return size


def encode_trailers(headers: Headers) -> bytes:
    """The field block of trailers. Connection-specific fields are left out."""
    return _encode([], headers)


def _encode(parts: list[bytes], headers: Headers) -> bytes:
    for name, value in headers:
        prefix = _PREFIXES.get(name)
        if prefix is None:
            prefix = _remember(name)
        if prefix:
            parts.append(prefix)
            length = len(value)
            parts.append(_SHORT[length] if length < 0x7F else _length(length))
            parts.append(value)
    return b"".join(parts)


def _remember(name: bytes) -> bytes:
    prefix = _prefix(name)
    if len(name) <= LONGEST_REMEMBERED:
        if len(_PREFIXES) >= MOST_REMEMBERED:
            _PREFIXES.clear()
        _PREFIXES[name] = prefix
    return prefix


def _prefix(name: bytes) -> bytes:
    """A literal field without indexing, up to its value (RFC 7541 §6.2.2). Empty for a field that is not sent."""
    name = name.lower()
    if name in CONNECTION_SPECIFIC:
        return b""
    index = _NAMES.get(name)
    if index is None:
        return b"\x00" + _length(len(name)) + name
    return bytes((index,)) if index < 0x0F else bytes((0x0F, index - 0x0F))


def _string_of(value: bytes) -> bytes:
    return _length(len(value)) + value


def _length(length: int) -> bytes:
    """A string's length, without Huffman code: an integer with a prefix of seven bits (RFC 7541 §5.1)."""
    if length < 0x7F:
        return _SHORT[length]
    length -= 0x7F
    encoded = [0x7F]
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _integer(block: bytes, at: i64, mask: i64) -> tuple[i64, i64]:
    """Decode an integer at ``at`` whose prefix is ``mask``: at most five bytes. Returns it, and the index behind it."""
    number: i64 = block[at] & mask
    at += 1
    if number < mask:
        return number, at
    end: i64 = len(block)
    shift: i64 = 0
    while at < end and shift < 28:
        byte: i64 = block[at]
        number += (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return number, at
    raise fault("An integer is cut short, or too long.")


def _string(block: bytes, at: i64, repeated: bytes = b"") -> tuple[bytes, i64]:
    """Decode a string at ``at``. Returns it, and the index behind it.

    ``repeated``: the name of the field whose value it is, if it may be sent again in full. What the client indexes is
    not, and what it marks as a secret (RFC 7541 §6.2.3) is not remembered.
    """
    if at >= len(block):
        raise fault("A field is cut short.")
    is_encoded = block[at] >= 0x80
    length, at = _integer(block, at, 0x7F)
    end: i64 = at + length
    if end > len(block):
        raise fault("A string is cut short.")
    text = block[at:end]
    if is_encoded:
        text = _decoded(text, repeated) if repeated and length <= LONGEST_REMEMBERED else _huffman(text)
    return text, end


def _decoded(coded: bytes, name: bytes) -> bytes:
    """As ``_huffman``, but each string only once: to decode a path takes as long as all other fields of a request."""
    text = _DECODED.get(coded)
    if text is None:
        text = _huffman(coded)
        if SECRET(name):
            return text
        if len(_DECODED) >= MOST_REMEMBERED:
            _DECODED.clear()
        _DECODED[coded] = text
    return text


def _huffman(coded: bytes) -> bytes:
    """Decode a string in Huffman code (RFC 7541 §5.2)."""
    symbols: list[int] = []
    state: i64 = 0
    at: i64 = 0
    end: i64 = len(coded)
    while at < end:
        byte: i64 = coded[at]
        at += 1
        step: i64 = TRANSITIONS[state | byte >> 4]
        if step & EMITS:
            symbols.append(int(step & 0xFF))
        step = TRANSITIONS[step >> NEXT | byte & 0x0F]
        if step & EMITS:
            symbols.append(int(step & 0xFF))
        state = step >> NEXT
    if state not in ENDINGS:
        raise fault("A Huffman code is cut short, badly padded, or contains EOS.")
    return bytes(symbols)
