# Compiled: see docs/decisions/compiled.md
"""One field of a block, with what its name and value mean to HTTP (RFC 9113 §8.2, §8.3).

A field is classified when it is decoded. Entries of an HPACK table keep their class, so fields that a client repeats
are not checked again.
"""

from __future__ import annotations

from typing import Final, final

from apigw.wire.headers import FIELD_VALUE, LOWER_TOKEN, Header

LINE_OVERHEAD: Final = 4
"""Bytes that a field takes in an HTTP/1.1 head besides its name and value. Both protocols have the same limit."""
CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Connection-specific fields, which make an HTTP/2 message malformed (RFC 9113 §8.2.2)."""

# The kinds of fields. What is above LAST_REGULAR is no regular field.
PLAIN: Final = 0
CONTENT_LENGTH: Final = 1
CONTENT_TYPE: Final = 2
COOKIE: Final = 3
EXPECT: Final = 4
HOST: Final = 5
TE: Final = 6
HOP: Final = 7
"""Of one hop, but not connection-specific: it is accepted and not passed on."""
LAST_REGULAR: Final = 7
CONNECTION: Final = 8
"""Connection-specific."""
BAD_NAME: Final = 9
BAD_VALUE: Final = 10
METHOD: Final = 11
FIRST_PSEUDO: Final = 11
SCHEME: Final = 12
AUTHORITY: Final = 13
PATH: Final = 14
STATUS: Final = 15
BAD_PSEUDO: Final = 16

_KINDS: Final[dict[bytes, int]] = {
    b"content-length": CONTENT_LENGTH,
    b"content-type": CONTENT_TYPE,
    b"cookie": COOKIE,
    b"expect": EXPECT,
    b"host": HOST,
    b"te": TE,
    b"trailer": HOP,
    b"http2-settings": HOP,
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b":status": STATUS,
    **dict.fromkeys(CONNECTION_SPECIFIC, CONNECTION),
}


@final
class Field:
    """``kind`` includes the check of its value, ``named`` does not. Values of pseudo-header fields are not checked."""

    def __init__(self, name: bytes, value: bytes, named: int) -> None:
        self.name = name
        self.value = value
        self.pair: Header = (name, value)
        self.named = named
        self.kind = BAD_VALUE if named < BAD_NAME and FIELD_VALUE(value) is None else named
        self.size = len(name) + len(value) + LINE_OVERHEAD


def kind_of(name: bytes) -> int:
    """The kind of a field of that name."""
    kind = _KINDS.get(name)
    if kind is not None:
        return kind
    if LOWER_TOKEN(name) is not None:
        return PLAIN
    return BAD_PSEUDO if name.startswith(b":") else BAD_NAME
