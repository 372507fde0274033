# Compiled: see docs/decisions/compiled.md
"""Begins and ends the traces of a route's exchanges."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable
from math import inf
from typing import Final, final

from mypy_extensions import i64

from apigw.contract.exchange import AtEnd, Exchange, Outcome, Stage, bytes_of, new_request_id
from apigw.contract.trace import Trace, Tried
from apigw.ops.access_line import without_secrets
from apigw.ops.tracing.batches import Batches
from apigw.ops.tracing.propagation import REQUEST_ID, UNDECIDED, Parent, Propagation
from apigw.ops.tracing.sampling import Sampler
from apigw.ops.tracing.spans import GRPC_FAILURES, ClientSpans, ServerSpans
from apigw.wire.headers import first

CLIENT_LEFT: Final = 499
_NO_STATUS: Final = -1
_SEMICOLON: Final = 0x3B
_UNHEXLIFY: Final = unhexlify


@final
class BeginTrace(Stage):
    """Finds out which trace an exchange belongs to, and whether it is recorded.

    It goes on with the trace of the client, unless only ``trusted`` peers' are wanted. A trace that begins here has the
    digits of the request id, if the gateway has made that.
    """

    def __init__(self, propagation: Propagation, sampler: Sampler, trusted: bool, end: AtEnd) -> None:
        self._propagation = propagation
        self._sampler = sampler
        self._trusted = trusted
        self._ends: tuple[AtEnd, ...] = (end,)

    def run(self, exchange: Exchange) -> Outcome:
        propagation, request = self._propagation, exchange.request
        parent: Parent | None = None
        trace_id = exchange.id
        if propagation.concerns(request.headers):
            if not self._trusted or exchange.peers.trusts(request.stream.peer):
                parent = propagation.parent(request.headers)
            if parent is not None and parent.trace_id:
                trace_id = parent.trace_id
            elif first(request.headers, REQUEST_ID) is not None:
                trace_id = new_request_id()
        exchange.trace_id = trace_id
        if parent is None or parent.sampled == UNDECIDED:
            sampled = self._sampler.chooses(trace_id)
        else:
            sampled = parent.sampled == 1
        span_id, state = (b"", b"") if parent is None else (parent.span_id, parent.state)
        if sampled:
            exchange.trace = Trace(propagation, trace_id, bytes_of(trace_id), span_id, state)
            exchange.at_end = exchange.at_end + self._ends if exchange.at_end else self._ends
        else:
            # No span of the gateway is recorded: the service is told the client's, or one that nobody has.
            fields = propagation.fields(trace_id, span_id or propagation.nobody, b"", False, state)
            exchange.sent = (*exchange.sent, *fields) if exchange.sent else fields
        return None


@final
class Epoch:
    """Unix time of the reactor's zero. It is found anew once a second, as somebody may set the system's clock."""

    def __init__(self, seconds: Callable[[], float], now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._found_at = -inf
        self._zero = 0.0

    def at(self, seconds: float) -> float:
        """What it is at a time of the reactor."""
        if not self._found_at <= seconds < self._found_at + 1.0:
            self._found_at = seconds
            self._zero = self._now() - self._seconds()
        return self._zero


@final
class EndTrace(AtEnd):
    """Encodes the spans of an exchange: its own, and one for each try."""

    def __init__(self, server: ServerSpans, client: ClientSpans, batches: Batches, epoch: Epoch) -> None:
        self._server = server
        self._client = client
        self._batches = batches
        self._epoch = epoch

    def run(self, exchange: Exchange) -> None:
        trace, request = exchange.trace, exchange.request
        assert trace is not None
        ended_at = exchange.ended_at
        zero = self._epoch.at(ended_at)
        trace.ended = zero + ended_at
        call, refusal, status = exchange.call, exchange.refusal, exchange.status
        grpc_status = _NO_STATUS if call is None or call.status is None else call.status
        error = b""
        if refusal is not None:
            if refusal.status >= 500 or status != refusal.status:  # else it is the client's fault
                error = refusal.code.encode("ascii")
        elif status == CLIENT_LEFT or status == 0:
            error = b"client_left"
        elif status >= 500:
            error = b"%d" % status
        elif grpc_status > 0 and grpc_status in GRPC_FAILURES:
            error = b"%d" % grpc_status
        if status == CLIENT_LEFT:
            status = 0
        path, query, target = request.path, b"", request.uri
        if request.query or _SEMICOLON in path:
            target = without_secrets(target)
            path, _, query = target.partition(b"?")
        if exchange.target is not request.uri:
            target = without_secrets(exchange.target)
        heads = self._server.heads(request.method)
        self._batches.add(
            self._server.encode(
                trace.id,
                trace.spans,
                _UNHEXLIFY(trace.parent_id) if trace.parent_id else b"",
                trace.state,
                zero + exchange.started_at,
                trace.ended,
                heads,
                request.clientproto,
                request.stream.secure,
                path,
                query,
                request.authority,
                exchange.peers.client_address(request),
                first(request.headers, b"user-agent") or b"",
                status,
                error,
                grpc_status,
            )
        )
        tried = trace.tried
        if tried is None:
            return
        number: i64 = 0
        for earlier in trace.earlier:
            self._add(trace, earlier, number, zero, ended_at, heads.client, target, _NO_STATUS)
            number += 1
        if not tried.status:
            grpc_status = _NO_STATUS
        self._add(trace, tried, number, zero, ended_at, heads.client, target, grpc_status)

    def _add(
        self,
        trace: Trace,
        tried: Tried,
        number: i64,
        zero: float,
        ended_at: float,
        head: bytes,
        target: bytes,
        grpc_status: int,
    ) -> None:
        """The span of a try."""
        self._batches.add(
            self._client.encode(
                trace.id,
                trace.spans,
                number,
                zero + tried.started_at,
                zero + (tried.ended_at or ended_at),
                head,
                tried.version,
                tried.target,
                tried.service,
                target,
                tried.status,
                _error_of(tried, grpc_status),
                grpc_status,
            )
        )


def _error_of(tried: Tried, grpc_status: int) -> bytes:
    if tried.error:
        return tried.error.encode("ascii")
    if tried.status >= 400:
        return b"%d" % tried.status
    if grpc_status > 0:
        return b"%d" % grpc_status
    return b"" if tried.status else b"cancelled"
