# Compiled: see docs/decisions/compiled.md
"""Checks of request targets: RFC 9112 §3.2, RFC 3986 §3.3, and known differences between programs.

The checked path is forwarded byte for byte, without normalisation, so that a service cannot interpret it differently. A
query need not be percent-encoded.
"""

from __future__ import annotations

import re
import string
from typing import Final

from apigw.wire.errors import Refused

_PLAIN: Final = b"-_~!$&'()*+,=:@|[]{}^`\"<>" + string.ascii_letters.encode() + string.digits.encode()
_SHAPE: Final = bytes(0x2F if byte in b"/." else 0x61 if byte in _PLAIN else 0x3F for byte in range(256))
"""Translates a path: dots to slashes, what is plain to a letter, and all else to a question mark. If that has neither
a question mark nor two slashes, the path is an ordinary one. Nearly every one is, and this takes a third of the time of
a regular expression."""
_QUERY: Final = bytes(byte if 0x21 <= byte <= 0x7E and byte != 0x23 else 0x21 for byte in range(256))
"""Changes no byte that a query may have, and every other."""
_MARK: Final = 0x3F
_ODD_BYTES: Final = re.compile(rb"[^\x21-\x7e]|#").search
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_FORBIDDEN_ESCAPE: Final = re.compile(rb"%(?:5[cC]|[01][0-9A-Fa-f]|7[fF])|\\").search
_ENCODED_SLASH: Final = re.compile(rb"%2[fF]")
_DOT: Final = re.compile(rb"%2[eE]").sub
_AUTHORITY: Final = re.compile(
    rb"(?=[^:])[A-Za-z0-9\-._~!$&'()*+,;=]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9\-._~!$&'()*+,;=]*)*(?::\d{0,5})?"
    rb"|\[[0-9A-Fa-f:.]{2,45}\](?::\d{0,5})?"
).fullmatch
_authorities: Final[set[bytes]] = set()
"""Those that were found valid."""
_MOST: Final = 1024
_LONGEST: Final = 64
_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}
ENCODED_SLASH, EMPTY_SEGMENT = 1, 2
"""Oddities of a path, as bits, that are refused unless they are kept."""

_ABSOLUTE: Final = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#]*)(/[^?]*)?(\?.*)?", re.DOTALL).fullmatch


def check_target(target: bytes, kept: int = 0) -> tuple[bytes, bytes]:
    """Split an origin-form target into its raw path and its query, the ``?`` included.

    Raises ``Refused`` with 400 for an ambiguous path. Oddities that are ``kept`` pass.
    """
    path, query = target, b""
    if _MARK in target:
        path, _, query = target.partition(b"?")
        query = b"?" + query
    shape = path.translate(_SHAPE)
    odd = _MARK in shape or shape.partition(b"//")[1] or not path.startswith(b"/")
    if odd or (query and query.translate(_QUERY) != query):
        _check_odd(target, kept)
    return path, query


def oddities(path: bytes) -> int:
    """Those of a path, as bits."""
    found = ENCODED_SLASH if _ENCODED_SLASH.search(path) else 0
    return found | EMPTY_SEGMENT if path.find(b"//") >= 0 else found


def _check_odd(target: bytes, kept: int) -> None:
    if not target.startswith(b"/"):
        raise Refused(400, "The request target must begin with a slash.")
    if _ODD_BYTES(target):
        raise Refused(400, "The request target contains a byte that must be percent-encoded.")
    path = target.partition(b"?")[0]
    if _BROKEN_ESCAPE(path):
        raise Refused(400, "The path holds a broken percent-encoding.")
    if _FORBIDDEN_ESCAPE(path) or (_ENCODED_SLASH.search(path) and not kept & ENCODED_SLASH):
        raise Refused(400, "The path contains a backslash, an encoded slash, or a control character.")
    for number, segment in enumerate(segments := path[1:].split(b"/")):
        # Who decodes a kept slash finds segments on both sides of it.
        for part in _ENCODED_SLASH.split(_DOT(b".", segment)):
            if part.partition(b";")[0] in (b".", b".."):
                raise Refused(400, "The path contains a dot segment (. or ..).")
        last = number == len(segments) - 1
        if segment.startswith(b";") or not (segment or last or kept & EMPTY_SEGMENT):
            raise Refused(400, "The path contains an empty segment (//).")


def check_authority(authority: bytes) -> None:
    """Raise ``Refused`` unless this is ``host`` or ``host:port`` (RFC 9110 §7.2)."""
    if authority in _authorities:
        return
    if _AUTHORITY(authority) is None:
        raise Refused(400, "The Host is missing or malformed.")
    if len(authority) <= _LONGEST:
        if len(_authorities) >= _MOST:
            _authorities.clear()
        _authorities.add(authority)


def check_served(hosts: frozenset[bytes], authority: bytes) -> None:
    """Raise ``Refused`` with 421 unless the hosts of a certificate have that of ``authority``.

    RFC 9110 §15.5.20. Who was verified for one host is not to reach another over the same connection. HTTP/1.0 may name
    none.
    """
    host = authority.lower()
    colon = host.rfind(b":")
    if colon >= 0 and not host.endswith(b"]"):
        host = host[:colon]
    if host.endswith(b"."):
        host = host[:-1]
    if host and host not in hosts and b"*." + host.partition(b".")[2] not in hosts:
        raise Refused(421, "The certificate of this connection is not for this host.")


def same_authority(one: bytes, other: bytes, scheme: bytes) -> bool:
    """Whether both are equal; an empty or missing port is the default of the scheme (RFC 9110 §4.2.3)."""
    one, other = one.lower(), other.lower()
    return one == other or _with_port(one, scheme) == _with_port(other, scheme)


def _with_port(authority: bytes, scheme: bytes) -> tuple[bytes, int]:
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority, b""
    return host, int(port) if port else _DEFAULT_PORTS[scheme.lower()]


def split_absolute(target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """The origin-form of an absolute-form target, and its authority.

    It must name the same as ``host``, which is empty where there is none (HTTP/1.0). RFC 9112 §3.2.2 would have the
    Host ignored; but who is in front of the gateway may have looked at that one.
    """
    match = _ABSOLUTE(target)
    if match is None:
        raise Refused(400, "The request target must be a path or an http URL.")
    scheme, authority, path, query = match.groups()
    check_authority(authority)
    if host and not same_authority(authority, host, scheme):
        raise Refused(400, "The request target and the Host disagree.")
    return (path or b"/") + (query or b""), authority
