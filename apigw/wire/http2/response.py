# Compiled: see docs/decisions/compiled.md
"""Makes the head of a service's answer of the fields of an HTTP/2 block (RFC 9113 §8.3.2)."""

from __future__ import annotations

import re
from typing import Final

from apigw.wire.errors import UpstreamMalformed
from apigw.wire.headers import Headers
from apigw.wire.http2.field import (
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOP,
    LAST_REGULAR,
    PLAIN,
    STATUS,
    TE,
    Field,
)
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


def read_head(fields: list[Field], size: int) -> ResponseHead:
    """``size`` is that of all fields; ``fields`` beyond ``MAX_HEAD`` may be missing. Raises ``UpstreamMalformed``."""
    if size > MAX_HEAD or len(fields) > MAX_HEADERS:
        raise UpstreamMalformed("the response's headers are too large")
    if not fields or fields[0].kind != STATUS or not _STATUS(fields[0].value):
        raise UpstreamMalformed("the response's status is missing or malformed")
    length: int | None = None
    event_stream = False
    headers: Headers = []
    for field in fields[1:]:
        kind = field.kind
        if kind != PLAIN:
            check_field(field)
            if kind == CONTENT_LENGTH:
                if length is not None or not _DIGITS(field.value):
                    raise UpstreamMalformed("the Content-Length is repeated or malformed")
                length = int(field.value)
            elif kind == CONTENT_TYPE:
                event_stream = field.value.startswith(EVENT_STREAM)
            elif kind in (TE, HOP):
                continue
        headers.append(field.pair)
    return ResponseHead(int(fields[0].value), headers, length, event_stream)


def read_trailers(fields: list[Field], size: int) -> Headers:
    """``size`` is that of all fields, as for ``read_head``. Raises ``UpstreamMalformed``."""
    if size > MAX_HEAD or len(fields) > MAX_HEADERS:
        raise UpstreamMalformed("the response's trailers are too large")
    for field in fields:
        check_field(field)
    return [field.pair for field in fields]


def check_field(field: Field) -> None:
    """Check a field of a head or of trailers. Raises ``UpstreamMalformed``."""
    if field.kind > LAST_REGULAR:
        raise UpstreamMalformed("a field is malformed, or belongs to a connection")
