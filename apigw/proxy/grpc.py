# Compiled: see docs/decisions/compiled.md
"""gRPC over HTTP/2: the gateway's errors in gRPC's form, the client's deadline, and the status of a call.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md is the protocol.
"""

from __future__ import annotations

import re
from typing import Final

from apigw import errors
from apigw.contract.exchange import AtEnd, Call, Exchange
from apigw.errors import GatewayError
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.headers import Headers, first, is_grpc
from apigw.wire.request import Request

CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_OF_HTTP: Final = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: CANCELLED,
    413: RESOURCE_EXHAUSTED,
    414: INTERNAL,
    429: UNAVAILABLE,
    431: INTERNAL,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
LASTS_AFTER: Final = 60.0
"""Seconds after which a call is treated as WebSockets and event streams are (``OnLasting``): it is a stream."""
CANCEL: Final = 8
"""The code of HTTP/2 with which either side gives up a call."""
_RESET: Final = 2  # INTERNAL_ERROR
_OF_RESET: Final = {_RESET: INTERNAL, CANCEL: CANCELLED, 11: RESOURCE_EXHAUSTED, 12: PERMISSION_DENIED}
"""The codes that are passed on, with what they mean to a client: 11 is ENHANCE_YOUR_CALM, 12 INADEQUATE_SECURITY."""
_WEB: Final = b"application/grpc-web"
_STATUS: Final = re.compile(rb"[0-9]{1,3}").fullmatch
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST: Final = 99_999_999
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def call_of(exchange: Exchange) -> Call | None:
    """What is known of the call if the request is one, by its ``content-type``."""
    request = exchange.request
    if exchange.call is None and request.method == b"POST" and is_grpc(request.headers):
        exchange.call = Call()
    return exchange.call


def takes_trailers(request: Request) -> bool:
    """Whether a call that has begun to be answered can end by trailers. gRPC-Web has them in the body."""
    content_type = first(request.headers, b"content-type")
    return request.clientproto == b"HTTP/2" and content_type is not None and not content_type.startswith(_WEB)


def begin_call(exchange: Exchange, deadlines: Deadlines) -> None:
    """From now on a call ends at its client's deadline (``grpc-timeout``), and counts as one that lasts when it has run
    for ``LASTS_AFTER``. Raises ``DeadlineExceeded``."""
    call = call_of(exchange)
    if call is None:
        return
    seconds = timeout_in(exchange.request.headers)
    if seconds is not None:
        call.deadline = exchange.started_at + seconds
        if call.deadline <= deadlines.seconds():
            raise errors.DeadlineExceeded("The deadline of the call has passed.")
    lasts_at = exchange.started_at + LASTS_AFTER if exchange.route.on_lasting else NEVER
    if call.deadline != NEVER or lasts_at != NEVER:
        timer = _Timer(exchange, call.deadline, lasts_at, deadlines)
        deadlines.watch(timer)
        exchange.at_end = (*exchange.at_end, timer)


class _Timer(AtEnd):
    def __init__(self, exchange: Exchange, ends_at: float, lasts_at: float, deadlines: Deadlines) -> None:
        self.deadline = min(ends_at, lasts_at)
        self._exchange = exchange
        self._ends_at = ends_at
        self._deadlines = deadlines

    def deadline_passed(self) -> None:
        exchange = self._exchange
        if self.deadline == self._ends_at:
            self.deadline = NEVER
            exchange.driver.refuse(exchange, errors.DeadlineExceeded("The deadline of the call has passed."))
            return
        self.deadline = self._ends_at
        for each in exchange.route.on_lasting:
            each.run(exchange)

    def run(self, exchange: Exchange) -> None:
        self._deadlines.forget(self)


def timeout_in(headers: Headers) -> float | None:
    """Seconds of ``grpc-timeout``; None without one, or if it is malformed: then the service will say so."""
    value = first(headers, b"grpc-timeout")
    match = None if value is None else _TIMEOUT(value)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def timeout_field(seconds: float) -> bytes:
    """``seconds`` as the value of ``grpc-timeout``: at most eight digits."""
    microseconds = max(1, int(seconds * 1e6))
    if microseconds <= _MOST:
        return b"%du" % microseconds
    milliseconds = microseconds // 1000
    return b"%dm" % milliseconds if milliseconds <= _MOST else b"%dS" % min(_MOST, milliseconds // 1000)


def with_less_time(fields: Headers, seconds: float) -> Headers:
    """``fields`` with the time that is left of a call, ``seconds``."""
    return [field if field[0] != b"grpc-timeout" else (field[0], timeout_field(seconds)) for field in fields]


def status_in(fields: Headers) -> int | None:
    """The ``grpc-status`` in trailers, or in the head of an answer without a body."""
    value = first(fields, b"grpc-status")
    return int(value) if value is not None and _STATUS(value) else None


def passed_on(reset: int) -> int:
    """The code with which a call is reset, if the service has done so with ``reset``."""
    return reset if reset in _OF_RESET else _RESET


def status_of(error: GatewayError) -> int:
    if error.reset is not None:
        return _OF_RESET[error.reset]
    return _OF_HTTP.get(error.status, UNKNOWN)


def trailers_of(error: GatewayError) -> Headers:
    """How a call ends that is refused with ``error``."""
    return [(b"grpc-status", b"%d" % status_of(error)), (b"grpc-message", message(error.detail or error.title))]


def head_of(error: GatewayError, request: Request) -> Headers:
    """The head of an answer without a body (Trailers-Only): it has the fields that are trailers otherwise."""
    content_type = first(request.headers, b"content-type") or b"application/grpc"
    return [(b"content-type", content_type), *trailers_of(error), *error.headers]


def message(text: str) -> bytes:
    """Percent-encoded, but for printable ASCII."""
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in text.encode())
