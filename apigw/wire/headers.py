# Compiled: see docs/decisions/compiled.md
"""Field names and values as both HTTP versions need them."""

from __future__ import annotations

import re
from typing import Final

Header = tuple[bytes, bytes]
Headers = list[Header]
"""Pairs in the order of arrival. Names are in lower case."""

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings".split()
)
"""Fields that belong to one connection (RFC 9110 §7.6.1), whether or not ``Connection`` names them."""

NOT_IN_TRAILERS: Final = HOP_BY_HOP | frozenset(
    b"host content-length content-type content-encoding content-range cache-control expect max-forwards pragma range"
    b" if-match if-none-match if-modified-since if-unmodified-since if-range age date expires location retry-after vary"
    b" warning authorization proxy-authorization www-authenticate proxy-authenticate authentication-info"
    b" proxy-authentication-info cookie set-cookie".split()
)
"""Fields that are not passed on as trailers (RFC 9110 §6.5.1): those of framing and routing, that modify a request or
control what is done with an answer, of authentication, and that say how the content is read."""

SECRET: Final = re.compile(rb"auth(?!ority)|cookie|key|passw|pwd|secret|session|signature|token").search
"""Finds in a name, in lower case, what tells that the value may be a secret, as an API key is. Such values are in no
memory of lines or strings: they stay no longer than their message."""

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
LOWER_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
FIELD_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?").fullmatch
"""RFC 9110 §5.5: no control characters but tabs, and no white space at either end."""
NO_LINE: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
"""Finds what no line of HTTP/1.1 can hold, whatever follows: CR or LF without the other, and control characters."""

FOLDED: Final = bytes(byte if bytes((byte,)).isalnum() else ord("-") for byte in range(256))
"""Translates every byte that is neither a letter nor a digit to a dash: some programs do not tell such names apart."""

KEEP_ALIVE: Final = frozenset({b"keep-alive"})
CLOSE: Final = frozenset({b"close"})
_USUAL: Final = {b"keep-alive": KEEP_ALIVE, b"Keep-Alive": KEEP_ALIVE, b"close": CLOSE}


def connection_options(value: bytes) -> frozenset[bytes]:
    """The lower-case options of a ``Connection`` field: what it says of the connection, and fields of this hop only."""
    usual = _USUAL.get(value)
    if usual is not None:
        return usual
    return frozenset(option for part in value.split(b",") if (option := part.strip(b" \t").lower()))


def first(headers: Headers, wanted: bytes) -> bytes | None:
    """The value of the first field of that name, or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def is_grpc(headers: Headers) -> bool:
    """Whether a POST with these is a call of gRPC, or gRPC-Web."""
    content_type = first(headers, b"content-type")
    return content_type is not None and content_type.startswith(b"application/grpc")
