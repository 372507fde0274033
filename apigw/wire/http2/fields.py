# Compiled: see docs/decisions/compiled.md
"""Makes a Request of the fields of an HTTP/2 block, as strictly as for HTTP/1.1 (RFC 9113 §8).

What is refused with a status on HTTP/1.1 gets the same status here. Faults that only HTTP/2 has, in pseudo-header
fields and connection-specific fields, are stream errors.
"""

from __future__ import annotations

import re
from typing import Final

from apigw.wire.errors import Refused
from apigw.wire.headers import TOKEN, Header, Headers
from apigw.wire.http2.field import (
    AUTHORITY,
    BAD_NAME,
    BAD_VALUE,
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    EXPECT,
    FIRST_PSEUDO,
    HOST,
    LAST_REGULAR,
    METHOD,
    PATH,
    PLAIN,
    SCHEME,
    TE,
    Field,
)
from apigw.wire.http2.frames import Code, StreamFault
from apigw.wire.methods import METHODS
from apigw.wire.request import Request, Stream
from apigw.wire.server import Settings
from apigw.wire.target import check_authority, check_target, oddities, same_authority

_DIGITS: Final = re.compile(rb"[0-9]{1,18}").fullmatch


class _Pseudo:
    """The pseudo-header fields of a request (RFC 9113 §8.3.1), of which each may be missing."""

    def __init__(self) -> None:
        self.method: bytes | None = None
        self.scheme: bytes | None = None
        self.authority: bytes | None = None
        self.path: bytes | None = None

    def set(self, field: Field) -> None:
        kind = field.kind
        if kind == METHOD:
            before, self.method = self.method, field.value
        elif kind == SCHEME:
            before, self.scheme = self.scheme, field.value
        elif kind == AUTHORITY:
            before, self.authority = self.authority, field.value
        elif kind == PATH:
            before, self.path = self.path, field.value
        else:
            raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field is not one of a request's.")
        if before is not None:
            raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field is repeated.")


def read_request(
    stream: Stream, fields: list[Field], size: int, ended: bool, max_size: int, max_count: int, kept: int = 0
) -> tuple[Request, bool]:
    """Returns the request, and whether the client waits for ``100 Continue`` before it sends the body.

    ``size`` is that of all fields; ``fields`` beyond ``max_size`` may be missing. ``ended``: the stream has no body.
    ``kept``: ``Settings.kept_oddities``.
    Raises ``Refused`` for what has a status on HTTP/1.1 too, and ``StreamFault`` for the rest.
    """
    pseudo = _Pseudo()
    headers: Headers = []
    special: list[Field] = []
    for field in fields:
        kind = field.kind
        if kind == PLAIN:
            headers.append(field.pair)
        elif kind >= FIRST_PSEUDO:
            if headers:
                raise StreamFault(Code.PROTOCOL_ERROR, "A pseudo-header field follows a regular one.")
            pseudo.set(field)
        elif kind == BAD_NAME:
            raise Refused(400, "A header's name is malformed, or not in lower case.")
        elif kind == BAD_VALUE:
            raise Refused(400, "A header's value is malformed.")
        else:
            special.append(field)
            headers.append(field.pair)
    if size > max_size:
        if pseudo.path is not None and len(pseudo.path) > max_size:
            raise Refused(414, "The request target is too long.")
        raise Refused(431, "The request's headers are too large.")
    host: bytes | None = None
    length: int | None = None
    expects = False
    if special:
        headers, host, length, expects = _read_special(headers, special)
    if len(headers) > max_count:
        raise Refused(431, "The request has too many headers.")
    method, scheme, target = _read_start(pseudo)
    authority = _read_authority(pseudo.authority, host, scheme)
    if host is None:
        headers.insert(0, (b"host", authority))
    path, query = check_target(target, kept)
    if ended:
        if length:
            raise Refused(400, "The request's body is shorter than its Content-Length.")
        length = 0
    request = Request(stream, method, target, path, query, authority, headers, b"HTTP/2", length)
    request.body_complete = length == 0
    if kept:
        request.odd = oddities(path)
    for field in special:
        if field.kind == TE:
            request.wants_trailers = True
    return request, expects and length != 0


def check_trailers(fields: list[Field], size: int, settings: Settings) -> None:
    """``size`` is that of all fields; ``fields`` beyond ``max_header_size`` may be missing. Raises ``StreamFault``."""
    if size > settings.max_header_size or len(fields) > settings.max_header_count:
        raise StreamFault(Code.PROTOCOL_ERROR, "The trailers are too large, or too many.", 431)
    for field in fields:
        if field.kind > LAST_REGULAR:
            raise StreamFault(Code.PROTOCOL_ERROR, "A trailer field is malformed.")


def _read_start(pseudo: _Pseudo) -> tuple[bytes, bytes, bytes]:
    """The method, the scheme, and the target."""
    method = pseudo.method
    if method is None:
        raise StreamFault(Code.PROTOCOL_ERROR, "The method is missing.")
    if method not in METHODS:
        if TOKEN(method) is None:
            raise Refused(400, "The method is malformed.")
        raise Refused(501, "The method is not known.")
    if method == b"CONNECT":
        raise Refused(405, "CONNECT is not supported.")
    target = pseudo.path
    scheme = pseudo.scheme
    if target is None or scheme is None:
        raise StreamFault(Code.PROTOCOL_ERROR, "The path or the scheme is missing.")
    # On a plain connection, https may be right: a proxy in front may have terminated TLS.
    if scheme != b"http" and scheme != b"https" and scheme.lower() not in (b"http", b"https"):
        raise Refused(400, "The scheme is neither http nor https.")
    if target == b"*":
        raise Refused(400, "The request target * has no path.")
    return method, scheme, target


def _read_authority(authority: bytes | None, host: bytes | None, scheme: bytes) -> bytes:
    if authority is None:
        authority = host
    if authority is None:
        raise Refused(400, "The Host is missing.")
    check_authority(authority)
    if host is not None and not same_authority(host, authority, scheme):
        raise Refused(400, "The authority and the Host disagree.")
    return authority


def _read_special(headers: Headers, special: list[Field]) -> tuple[Headers, bytes | None, int | None, bool]:
    """The headers with their cookies joined (RFC 9113 §8.2.3), the Host, the Content-Length, and the wish for a 100."""
    host: bytes | None = None
    length: int | None = None
    expects = False
    cookies: list[bytes] = []
    for field in special:
        kind, value = field.kind, field.value
        if kind == HOST:
            if host is not None:
                raise Refused(400, "The Host is repeated.")
            host = value
        elif kind == CONTENT_LENGTH:
            if length is not None or not _DIGITS(value):
                raise Refused(400, "The Content-Length is repeated or malformed.")
            length = int(value)
        elif kind == COOKIE:
            cookies.append(value)
        elif kind == EXPECT:
            expects = value.lower() == b"100-continue"
        elif kind == CONNECTION or (kind == TE and value.lower() != b"trailers"):
            raise StreamFault(Code.PROTOCOL_ERROR, "Connection-specific headers are not allowed in HTTP/2.")
    if len(cookies) > 1:
        joined: Header = (b"cookie", b"; ".join([cookie for cookie in cookies if cookie]))
        headers = [pair for pair in headers if pair[0] != b"cookie"]
        headers.append(joined)
    return headers, host, length, expects
