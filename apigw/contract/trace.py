# Compiled: see docs/decisions/compiled.md
"""The trace of an exchange that is recorded, with its tries, as the relay of its bytes tells them."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import mypyc_attr

from apigw.ops.tracing.propagation import Propagation
from apigw.wire.headers import Headers

_NUMBERS: Final = [b"%02x" % number for number in range(256)]


@final
@mypyc_attr(acyclic=True)
class Tried:
    """One try: a request to a ``target``. Times are seconds of the reactor.

    ``status`` is 0 while there is no answer; ``error`` is the kind of its failure (``gateway_upstream_errors_total``).
    """

    def __init__(self, target: str, service: str, started_at: float) -> None:
        self.target = target
        self.service = service
        self.started_at = started_at
        self.ended_at = 0.0
        self.version = b"HTTP/1.1"
        self.status = 0
        self.error = ""


@final
@mypyc_attr(acyclic=True)
class Trace:
    """``trace_id``, of the bytes ``id``, and ``parent_id`` are hexadecimal digits. ``parent_id`` is empty where the
    trace begins here, ``state`` without ``tracestate``.

    The ids of its spans are the seven bytes ``spans``, and one that is 0 for the exchange, 1 for its first try. They
    have to differ within a trace only: where that begins here, they are its own first bytes.
    """

    def __init__(self, propagation: Propagation, trace_id: bytes, id: bytes, parent_id: bytes, state: bytes) -> None:
        self.trace_id = trace_id
        self.id = id
        if parent_id:
            self.spans, self._digits = propagation.new_spans()
        else:
            self.spans, self._digits = id[:7], trace_id[:14]
        self.parent_id = parent_id
        self.state = state
        self.tried: Tried | None = None
        """The present try, or the last."""
        self.earlier: tuple[Tried, ...] = ()
        """Those before it; nearly always none."""
        self.ended = 0.0
        """Unix time of the exchange's end."""
        self._propagation = propagation

    def begin(self, target: str, service: str, now: float, fields: Headers) -> None:
        """A try begins. Adds the headers that the service gets to ``fields``."""
        self._try(target, service, now)
        number = _NUMBERS[len(self.earlier) + 1 & 255]
        fields += self._propagation.fields(self.trace_id, self._digits, number, True, self.state)

    def _try(self, target: str, service: str, now: float) -> None:
        before = self.tried
        if before is not None:
            self.earlier += (before,)
        self.tried = Tried(target, service, now)

    def end(self, now: float, version: bytes) -> None:
        """The present try is over."""
        tried = self.tried
        assert tried is not None
        tried.ended_at = now
        tried.version = version

    def answered(self, status: int) -> None:
        """What the present try, or that which has just ended, was answered with."""
        assert self.tried is not None
        self.tried.status = status

    def unconnected(self, target: str, service: str, began: float, now: float) -> None:
        """No connection could be made for a try."""
        self._try(target, service, began)
        assert self.tried is not None
        self.tried.ended_at = now
        self.failed("connect")

    def failed(self, kind: str) -> None:
        """How it failed."""
        assert self.tried is not None
        self.tried.error = kind
