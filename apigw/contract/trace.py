# Compiled: see docs/decisions/compiled.md
"""The trace of an exchange that is recorded, with its tries, as the relay of its bytes tells them."""

from __future__ import annotations

from typing import final

from apigw.ops.tracing.propagation import Propagation
from apigw.wire.headers import Headers


@final
class Tried:
    """One try: a request to a ``target``. ``span_id`` is bytes; times are seconds of the reactor.

    ``status`` is 0 while there is no answer; ``error`` is the kind of its failure (``gateway_upstream_errors_total``).
    """

    def __init__(self, span_id: bytes, target: str, service: str, started_at: float) -> None:
        self.span_id = span_id
        self.target = target
        self.service = service
        self.started_at = started_at
        self.ended_at = 0.0
        self.version = b"HTTP/1.1"
        self.status = 0
        self.error = ""


@final
class Trace:
    """``trace_id`` and ``parent_id`` are hexadecimal digits, ``span_id`` is bytes. ``parent_id`` is empty where the
    trace begins here, ``state`` without ``tracestate``."""

    def __init__(self, propagation: Propagation, trace_id: bytes, parent_id: bytes, state: bytes) -> None:
        self.trace_id = trace_id
        self.span_id, self._digits = propagation.new_span_id()
        self.parent_id = parent_id
        self.state = state
        self.tries: list[Tried] = []
        self._propagation = propagation

    def begin(self, target: str, service: str, now: float) -> Headers:
        """A try begins. The headers that the service gets."""
        propagation = self._propagation
        span_id, digits = propagation.new_span_id()
        self.tries.append(Tried(span_id, target, service, now))
        return propagation.fields(self.trace_id, digits, self._digits, True, self.state)

    def end(self, now: float, version: bytes) -> None:
        """The present try is over."""
        tried = self.tries[-1]
        tried.ended_at = now
        tried.version = version

    def answered(self, status: int) -> None:
        """What the present try, or that which has just ended, was answered with."""
        self.tries[-1].status = status

    def unconnected(self, target: str, service: str, began: float, now: float) -> None:
        """No connection could be made for a try."""
        self.begin(target, service, began)
        self.tries[-1].ended_at = now
        self.failed("connect")

    def failed(self, kind: str) -> None:
        """How it failed."""
        self.tries[-1].error = kind
