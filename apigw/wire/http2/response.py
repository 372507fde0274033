# Compiled: see docs/decisions/compiled.md
"""Makes the head of a service's answer of the fields of an HTTP/2 block (RFC 9113 §8.3.2)."""

from __future__ import annotations

import re
from typing import Final

from apigw.wire.errors import UpstreamMalformed
from apigw.wire.headers import FIELD_VALUE, HOP_BY_HOP, LOWER_TOKEN, Headers
from apigw.wire.http2.hpack import CONNECTION_SPECIFIC
from apigw.wire.interfaces import EVENT_STREAM, MAX_HEAD, MAX_HEADERS

_STATUS: Final = re.compile(rb"[1-5][0-9]{2}").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,18}").fullmatch


class ResponseHead:
    """``headers`` are without pseudo-header and hop-by-hop fields. ``content_length`` is None if there is none."""

    def __init__(self, status: int, headers: Headers, content_length: int | None, event_stream: bool) -> None:
        self.status = status
        self.headers = headers
        self.content_length = content_length
        self.event_stream = event_stream


def read_head(fields: Headers, size: int) -> ResponseHead:
    """``size`` is that of all fields; ``fields`` beyond ``MAX_HEAD`` may be missing. Raises ``UpstreamMalformed``."""
    if size > MAX_HEAD or len(fields) > MAX_HEADERS:
        raise UpstreamMalformed("the response's headers are too large")
    if not fields or fields[0][0] != b":status" or not _STATUS(fields[0][1]):
        raise UpstreamMalformed("the response's status is missing or malformed")
    length: int | None = None
    event_stream = False
    headers: Headers = []
    for field in fields[1:]:
        name, value = field
        check_field(name, value)
        if name == b"content-length":
            if length is not None or not _DIGITS(value):
                raise UpstreamMalformed("the Content-Length is repeated or malformed")
            length = int(value)
        elif name == b"content-type":
            event_stream = value.startswith(EVENT_STREAM)
        elif name in HOP_BY_HOP:
            continue
        headers.append(field)
    return ResponseHead(int(fields[0][1]), headers, length, event_stream)


def read_trailers(fields: Headers, size: int) -> Headers:
    """``size`` is that of all fields, as for ``read_head``. Raises ``UpstreamMalformed``."""
    if size > MAX_HEAD or len(fields) > MAX_HEADERS:
        raise UpstreamMalformed("the response's trailers are too large")
    for name, value in fields:
        check_field(name, value)
    return fields


def check_field(name: bytes, value: bytes) -> None:
    """Check a field of a head or of trailers. Raises ``UpstreamMalformed``."""
    if name in CONNECTION_SPECIFIC or LOWER_TOKEN(name) is None or FIELD_VALUE(value) is None:
        raise UpstreamMalformed("a field is malformed, or belongs to a connection")
