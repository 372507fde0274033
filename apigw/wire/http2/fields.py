"""Makes a Request of the fields of an HTTP/2 block, as strictly as for HTTP/1.1 (RFC 9113 §8).

What is refused with a status on HTTP/1.1 gets the same status here. Faults that only HTTP/2 has, in pseudo-header
fields and connection-specific fields, are stream errors.
"""

from __future__ import annotations

import re

from apigw.wire.errors import Refused
from apigw.wire.headers import FIELD_VALUE, LOWER_TOKEN, TOKEN, Header, Headers
from apigw.wire.http2.frames import Code, StreamFault
from apigw.wire.http2.hpack import CONNECTION_SPECIFIC
from apigw.wire.methods import METHODS
from apigw.wire.request import Request, Stream
from apigw.wire.server import Settings
from apigw.wire.target import check_authority, check_target, same_authority

_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_SPECIAL = CONNECTION_SPECIFIC | {b"content-length", b"cookie", b"expect", b"host", b"te"}
_DIGITS = re.compile(rb"[0-9]{1,18}").fullmatch


def read_request(
    stream: Stream, fields: Headers, size: int, ended: bool, max_size: int, max_count: int
) -> tuple[Request, bool]:
    """Returns the request, and whether the client waits for ``100 Continue`` before it sends the body.

    ``size`` is that of all fields; ``fields`` beyond ``max_size`` may be missing. ``ended``: the stream has no body.
    Raises ``Refused`` for what has a status on HTTP/1.1 too, and ``StreamFault`` for the rest.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    special: list[Header] = []
    for field in fields:
        name, value = field
        if name in _PSEUDO:
            if headers or special:
                raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field follows a regular one.")
            if name in pseudo:
                raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field is repeated.")
            pseudo[name] = value
            continue
        _check_field(name, value)
        if name in _SPECIAL:
            special.append(field)
        headers.append(field)
    if size > max_size:
        if len(pseudo.get(b":path", b"")) > max_size:
            raise Refused(414, "The request target is too long.")
        raise Refused(431, "The request's headers are too large.")
    if special:
        headers, host, length, expects = _read_special(headers, special)
    else:
        host, length, expects = None, None, False
    if len(headers) > max_count:
        raise Refused(431, "The request has too many headers.")
    method, target = _read_start(pseudo)
    authority = _read_authority(pseudo.get(b":authority"), host, pseudo[b":scheme"])
    if host is None:
        headers.insert(0, (b"host", authority))
    path, query = check_target(target)
    if ended:
        if length:
            raise Refused(400, "The request's body is shorter than its Content-Length.")
        length = 0
    request = Request(stream, method, target, path, query, authority, headers, b"HTTP/2", length)
    request.body_complete = length == 0
    request.wants_trailers = any(name == b"te" for name, _ in special)
    return request, expects and length != 0


def check_trailers(fields: Headers, size: int, settings: Settings) -> None:
    """``size`` is that of all fields; ``fields`` beyond ``max_header_size`` may be missing. Raises ``StreamFault``."""
    if size > settings.max_header_size or len(fields) > settings.max_header_count:
        raise StreamFault(Code.PROTOCOL_ERROR, "The trailers are too large, or too many.", 431)
    for name, value in fields:
        if name in CONNECTION_SPECIFIC or not LOWER_TOKEN(name) or not FIELD_VALUE(value):
            raise StreamFault(Code.PROTOCOL_ERROR, "A trailer field is malformed.")


def _check_field(name: bytes, value: bytes) -> None:
    if LOWER_TOKEN(name) is None:
        if name.startswith(b":"):
            raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field is not one of a request's.")
        raise Refused(400, "A header's name is malformed, or not in lower case.")
    if FIELD_VALUE(value) is None:
        raise Refused(400, "A header's value is malformed.")


def _read_start(pseudo: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The method and the target, which RFC 9112 calls the start line."""
    method = pseudo.get(b":method")
    if method is None:
        raise StreamFault(Code.PROTOCOL_ERROR, "The method is missing.")
    if method not in METHODS:
        if TOKEN(method) is None:
            raise Refused(400, "The method is malformed.")
        raise Refused(501, "The method is not known.")
    if method == b"CONNECT":
        raise Refused(405, "CONNECT is not supported.")
    target = pseudo.get(b":path")
    scheme = pseudo.get(b":scheme")
    if target is None or scheme is None:
        raise StreamFault(Code.PROTOCOL_ERROR, "The path or the scheme is missing.")
    # On a plain connection, https may be right: a proxy in front may have terminated TLS.
    if scheme.lower() not in (b"http", b"https"):
        raise Refused(400, "The scheme is neither http nor https.")
    if target == b"*":
        raise Refused(400, "The request target * has no path.")
    return method, target


def _read_authority(authority: bytes | None, host: bytes | None, scheme: bytes) -> bytes:
    if authority is None:
        authority = host
    if authority is None:
        raise Refused(400, "The Host is missing.")
    check_authority(authority)
    if host is not None and not same_authority(host, authority, scheme):
        raise Refused(400, "The authority and the Host disagree.")
    return authority


def _read_special(headers: Headers, special: Headers) -> tuple[Headers, bytes | None, int | None, bool]:
    """The headers with their cookies joined (RFC 9113 §8.2.3), the Host, the Content-Length, and the wish for a 100."""
    host: bytes | None = None
    length: int | None = None
    expects = False
    cookies: list[bytes] = []
    for name, value in special:
        if name == b"host":
            if host is not None:
                raise Refused(400, "The Host is repeated.")
            host = value
        elif name == b"content-length":
            if length is not None or not _DIGITS(value):
                raise Refused(400, "The Content-Length is repeated or malformed.")
            length = int(value)
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"expect":
            expects = value.lower() == b"100-continue"
        elif name != b"te" or value.lower() != b"trailers":
            raise StreamFault(Code.PROTOCOL_ERROR, "Connection-specific headers are not allowed in HTTP/2.")
    if len(cookies) > 1:
        headers = [field for field in headers if field[0] != b"cookie"]
        headers.append((b"cookie", b"; ".join(filter(None, cookies))))
    return headers, host, length, expects
