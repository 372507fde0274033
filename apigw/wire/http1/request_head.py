# Compiled: see docs/decisions/compiled.md
"""The head of a request to a service, as HTTP/1.1 writes it."""

from __future__ import annotations

from typing import Final

from apigw.wire.headers import Headers
from apigw.wire.http1.field_lines import add_lines

_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})  # empty ones have a Content-Length too (RFC 9110 §8.6)


def request_head(
    method: bytes, target: bytes, authority: bytes, fields: Headers, length: int | None, upgrade: bool
) -> bytes:
    """The head of a request in canonical form, with exactly one framing (RFC 9112 §3 to §6)."""
    out = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, authority)]
    add_lines(out, fields)
    if length is None:
        out.append(b"\r\ntransfer-encoding: chunked")
    elif length or method in _WITH_BODY:
        out.append(b"\r\ncontent-length: %d" % length)
    if upgrade:
        out.append(b"\r\nconnection: upgrade\r\nupgrade: websocket")
    out.append(b"\r\n\r\n")
    return b"".join(out)
