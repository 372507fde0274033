# Compiled: see docs/decisions/compiled.md
"""Accounting of each exchange at its end, exactly once: metrics and a line of the access log."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, cast

from apigw.contract.exchange import Exchange
from apigw.errors import GatewayError
from apigw.ops.access_line import Entry
from apigw.ops.access_log import AccessLog
from apigw.ops.metrics import UNMATCHED, Metrics
from apigw.proxy.relay import Relay
from apigw.wire.headers import first
from apigw.wire.request import Request

_LINE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]{0,31}) ([^ \r\n]+)").match
"""How a request begins, as far as it can be told from other bytes."""


class Accounting:
    """``access_log`` is None if there is none. ``seconds`` is the clock of durations, ``now`` Unix time for the log."""

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog | None,
        seconds: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._bodies = metrics.bodies
        self._access_log = access_log
        self._seconds = seconds
        self._now = now
        self._unmatched = metrics.route(UNMATCHED)

    def exchange_ended(self, exchange: Exchange) -> None:
        """Account for an exchange of the proxy."""
        ended_at = exchange.ended_at
        route = exchange.route
        request = exchange.request
        relay = None if exchange.relay is None else cast(Relay, exchange.relay)
        endless = relay is not None and (relay.tunnelled or relay.event_stream)
        took = ended_at - exchange.started_at
        if not (relay is not None and relay.tunnelled):
            self._bodies.received += request.bytes_received
            self._bodies.sent += request.bytes_sent
        trace, recorded, ended = exchange.trace, b"", 0.0
        if trace is not None:
            recorded, ended = trace.trace_id, trace.ended
        route.series.observe(request.method, exchange.status, None if endless else took, recorded, ended)
        if relay is not None and relay.upstream_ended_at and not endless:
            took_upstream = relay.upstream_ended_at - relay.sent_at
            relay.destination.upstream.series.observe(took_upstream, recorded, ended)
        call = exchange.call
        if call is not None and call.status is not None and relay is not None:
            relay.destination.upstream.series.called(call.status)
        refusal = exchange.refusal
        log = self._access_log
        if log is not None and route.logged:
            target = None if relay is None else relay.target
            answered = target is not None and refusal is None and request.started
            asked, upstream_duration = None if target is None else target.name, None
            if relay is not None and relay.unreached:
                asked = relay.unreached
            elif relay is not None and relay.sent_at:
                upstream_duration = (relay.upstream_ended_at or ended_at) - relay.sent_at
            quotes = log.quotes_headers
            log.log(
                Entry(
                    time=self._now(),
                    request_id=exchange.id.decode("ascii"),
                    client=exchange.client_address,
                    method=request.method,
                    target=request.uri,
                    route=route.name or None,
                    status=exchange.status,
                    made_by="upstream" if answered else "gateway",
                    code=None if refusal is None else refusal.code,
                    bytes_in=request.bytes_received,
                    bytes_out=request.bytes_sent,
                    duration=took,
                    upstream=asked,
                    upstream_duration=upstream_duration,
                    principal=None if exchange.principal is None else exchange.principal.id,
                    protocol=request.clientproto.decode("ascii"),
                    referer=first(request.headers, b"referer") if quotes else None,
                    user_agent=first(request.headers, b"user-agent") if quotes else None,
                    grpc_status=None if call is None else call.status,
                    tries=None if relay is None or relay.tries is None else relay.tries.number,
                    service=route.service if route.chosen else None,
                    trace_id=exchange.trace_id.decode("ascii") if exchange.trace_id else None,
                    reason=None if refusal is None else _reason(refusal),
                    host=request.authority if quotes else None,
                )
            )

    def resource_ended(
        self, request: Request, path: str, started_at: float, client: bytes, refusal: GatewayError | None
    ) -> None:
        """Account for an exchange with a Resource. ``path`` is reserved or ``unmatched``."""
        seconds = self._seconds() - started_at
        status = request.code if request.started else 499
        self._metrics.route(path).observe(request.method, status, seconds)
        self._bodies.received += request.bytes_received
        self._bodies.sent += request.bytes_sent
        if self._access_log is not None:
            self._access_log.log(
                Entry(
                    time=self._now(),
                    request_id=request.identifier.decode("ascii"),
                    client=client.decode("ascii"),
                    method=request.method,
                    target=request.uri,
                    route=path,
                    status=status,
                    made_by="gateway",
                    code=None if refusal is None else refusal.code,
                    bytes_in=request.bytes_received,
                    bytes_out=request.bytes_sent,
                    duration=seconds,
                    upstream=None,
                    upstream_duration=None,
                    principal=None,
                    protocol=request.clientproto.decode("ascii"),
                    referer=first(request.headers, b"referer"),
                    user_agent=first(request.headers, b"user-agent"),
                    reason=None if refusal is None else _reason(refusal),
                    host=request.authority,
                )
            )

    def refused(
        self, error: GatewayError, identifier: bytes, peer: bytes, protocol: bytes, size: int, began_with: bytes
    ) -> None:
        """Account for a request that could not be parsed, and that the wire refused. Method and target are those that
        ``began_with`` shows, if any."""
        line = _LINE(began_with)
        self._unmatched.observe("OTHER" if line is None else line[1], error.status, None)
        if self._access_log is not None:
            self._access_log.log(
                Entry(
                    time=self._now(),
                    request_id=identifier.decode("ascii"),
                    client=peer.decode("ascii"),
                    method=b"-" if line is None else line[1],
                    target=b"-" if line is None else line[2],
                    route=None,
                    status=error.status,
                    made_by="gateway",
                    code=error.code,
                    bytes_in=0,
                    bytes_out=size,
                    duration=0.0,
                    upstream=None,
                    upstream_duration=None,
                    principal=None,
                    protocol=protocol.decode("ascii"),
                    reason=_reason(error),
                )
            )


def _reason(error: GatewayError) -> str:
    """The sentence that the client got, and what only the operator is told."""
    said = error.detail or error.title
    return f"{said.removesuffix('.')}: {error.cause}" if error.cause else said
