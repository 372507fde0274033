# Compiled: see docs/decisions/compiled.md
"""Begins and ends the traces of a route's exchanges."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable
from typing import Final, final

from apigw.contract.exchange import AtEnd, Exchange, Outcome, Stage, new_request_id
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
        self._end = end

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
            exchange.trace = Trace(propagation, trace_id, span_id, state)
            exchange.at_end += (self._end,)
        else:
            # No span of the gateway is recorded: the service is told the client's, or one that nobody has.
            sent = propagation.fields(trace_id, span_id or trace_id[:16], b"", False, state)
            exchange.sent = [*exchange.sent, *sent] if exchange.sent else sent
        return None


@final
class EndTrace(AtEnd):
    """Encodes the spans of an exchange: its own, and one for each try."""

    def __init__(
        self,
        server: ServerSpans,
        client: ClientSpans,
        batches: Batches,
        seconds: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._server = server
        self._client = client
        self._batches = batches
        self._seconds = seconds
        self._now = now

    def run(self, exchange: Exchange) -> None:
        trace, request = exchange.trace, exchange.request
        assert trace is not None
        ended_at = self._seconds()
        began = self._now() - ended_at  # Unix time of the reactor's zero
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
        elif grpc_status in GRPC_FAILURES:
            error = b"%d" % grpc_status
        if status == CLIENT_LEFT:
            status = 0
        path, query, target = request.path, b"", request.uri
        if request.query or _SEMICOLON in path:
            target = without_secrets(target)
            path, _, query = target.partition(b"?")
        if exchange.target is not request.uri:
            target = without_secrets(exchange.target)
        trace_id = _UNHEXLIFY(trace.trace_id)
        batches = self._batches
        batches.add(
            self._server.encode(
                trace_id,
                trace.span_id,
                _UNHEXLIFY(trace.parent_id) if trace.parent_id else b"",
                trace.state,
                began + exchange.started_at,
                began + ended_at,
                request.method,
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
        for number, tried in enumerate(trace.tries):
            its_grpc_status = grpc_status if tried.status and number == len(trace.tries) - 1 else _NO_STATUS
            batches.add(
                self._client.encode(
                    trace_id,
                    tried.span_id,
                    trace.span_id,
                    began + tried.started_at,
                    began + (tried.ended_at or ended_at),
                    request.method,
                    tried.version,
                    tried.target,
                    tried.service,
                    target,
                    tried.status,
                    _error_of(tried, its_grpc_status),
                    number,
                    its_grpc_status,
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
