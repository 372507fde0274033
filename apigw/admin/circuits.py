"""``/circuits``: shows each service's circuit and targets, and lets operators open and close circuits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from json import loads

from twisted.logger import Logger

from apigw import errors
from apigw.admin.writes import Writes
from apigw.contract.resource import Leaf, answer
from apigw.upstream.circuit import Circuit
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.web_request import WebRequest

log = Logger()


class Circuits(Leaf):
    """GET: each service, its circuit and its targets. POST opens, closes or frees a circuit by hand."""

    def __init__(self, upstreams: Callable[[], Iterable[Upstream]], writes: Writes) -> None:
        super().__init__()
        self._upstreams = upstreams
        self._writes = writes

    def render_GET(self, request: WebRequest) -> int:
        return answer(request, 200, {"circuits": [circuit_of(upstream) for upstream in self._upstreams()]})

    def render_POST(self, request: WebRequest) -> int:
        """A body such as ``{"service": "users", "action": "open"}``. Answers with the new state of the circuit."""
        self._writes.check(request)
        upstream, action = self._wanted(request.content.getvalue())
        log.warn(
            "circuit of {service}: {action} by hand, from {peer}",
            service=upstream.name,
            action=action,
            peer=request.peer.decode("ascii", "replace"),
        )
        assert upstream.circuit is not None
        ACTIONS[action](upstream.circuit)
        return answer(request, 200, circuit_of(upstream))

    def _wanted(self, body: bytes) -> tuple[Upstream, str]:
        try:
            document = loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.keys() != {"service", "action"}:
            raise errors.BadRequest('The body must be JSON such as {"service": "users", "action": "open"}.')
        service, action = document["service"], document["action"]
        if not isinstance(action, str) or action not in ACTIONS:
            raise errors.BadRequest(f"The action must be one of {', '.join(ACTIONS)}.")
        for upstream in self._upstreams():
            if upstream.name == service and upstream.circuit is not None:
                return upstream, action
        raise errors.NotFound("No service of that name has a circuit breaker.")


ACTIONS: Mapping[str, Callable[[Circuit], None]] = {"open": Circuit.open, "close": Circuit.close, "free": Circuit.free}


def circuit_of(upstream: Upstream) -> dict[str, object]:
    """The JSON object of a service. Times are seconds; ``state`` is null if it has no circuit breaker."""
    shown: dict[str, object] = {"service": upstream.name, "state": None}
    if upstream.circuit is not None:
        status = upstream.circuit.status()
        shown |= {
            "state": str(status.state),
            "why": status.why,
            "since": _rounded(status.since),
            "retry_in": _rounded(status.retry_in),
            "failures": status.failures,
            "total": status.total,
            "forced": status.forced,
            "opened": status.opened,
        }
    return {**shown, "targets": [_target(target) for target in upstream.targets]}


def _target(target: Target) -> dict[str, object]:
    return {
        "target": target.name,
        "healthy": target.healthy,
        "available": target.available,
        "connections": target.pool.connections,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
