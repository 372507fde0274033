"""The status page on the admin listener, and the JSON behind it: how this gateway and its services are doing now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import orjson
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from apigw.ops.history import SECONDS, History, Second, Tally
from apigw.ops.metrics import METHODS
from apigw.resources import Leaf, respond
from apigw.snapshot import Route, Snapshot
from apigw.upstream import Target, Upstream
from apigw.wire.headers import Headers
from apigw.wire.request import Request

MAX_AGE = 0.5
"""Seconds for which a document is handed out again, however many watch."""

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do (Content Security Policy Level 3): no inline script or style, nothing from elsewhere."""

_FILES = {
    b"/": ("page.html", b"text/html; charset=utf-8"),
    b"/status.js": ("status.js", b"text/javascript; charset=utf-8"),
    b"/status.css": ("status.css", b"text/css; charset=utf-8"),
}

Ask = Callable[[], dict[str, Any]]


class Content(Leaf):
    """Bytes that a callable returns."""

    def __init__(self, content_type: bytes, content: Callable[[], bytes]) -> None:
        super().__init__()
        self._content = content
        self._headers: Headers = [
            (b"content-type", content_type),
            (b"cache-control", b"no-store"),
            (b"content-security-policy", POLICY),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    def render_GET(self, request: Request) -> int:
        body = self._content()
        respond(request, 200, [*self._headers, (b"content-length", b"%d" % len(body))], body)
        return NOT_DONE_YET


def page(ask: Ask, clock: Callable[[], float]) -> dict[bytes, IResource]:
    """The resources of the page by path. ``ask`` makes the document that the page shows."""
    folder = files("apigw.ops") / "status"
    resources: dict[bytes, IResource] = {}
    for path, (name, content_type) in _FILES.items():
        resources[path] = Content(content_type, partial(bytes, (folder / name).read_bytes()))
    made_at, made = float("-inf"), b""

    def document() -> bytes:
        nonlocal made_at, made
        if not 0 <= clock() - made_at < MAX_AGE:
            made_at, made = clock(), orjson.dumps(ask(), option=orjson.OPT_APPEND_NEWLINE)
        return made

    resources[b"/status.json"] = Content(b"application/json", document)
    return resources


def document(facts: Mapping[str, Any], snapshot: Snapshot, history: History) -> dict[str, Any]:
    """``facts`` about the process, and all else that the page shows. Times are seconds, and how long ago."""
    span = history.span()
    tallies: dict[str, Tally] = {upstream.name: Tally() for upstream in snapshot.upstreams.values()}
    routes = [
        _route_row(route, _tally(route, others, history), tallies[route.upstream.name], span)
        for others in _by_pattern(snapshot).values()
        for route in others
    ]
    return {
        **facts,
        "history": _plots(history.seconds),
        "services": [_service_row(upstream, tallies[upstream.name], span) for upstream in snapshot.upstreams.values()],
        "routes": routes,
    }


def _by_pattern(snapshot: Snapshot) -> dict[str, list[Route]]:
    found: dict[str, list[Route]] = {}
    for route in snapshot.routes:
        found.setdefault(route.pattern, []).append(route)
    return found


def _tally(route: Route, others: list[Route], history: History) -> Tally:
    """The last minute of a route. Those of one pattern share their series, and are told apart by method."""
    total = Tally()
    for method, tally in history.lately(route.pattern).items():
        if len(others) == 1 or next((other for other in others if _takes(other, method)), others[-1]) is route:
            total.add(tally)
    return total


def _takes(route: Route, method: str) -> bool:
    methods = route.methods
    if methods is None or method in methods:
        return True
    return (method == "HEAD" and "GET" in methods) or (method == "OTHER" and not METHODS.issuperset(methods))


def _route_row(route: Route, tally: Tally, of_service: Tally, span: float) -> dict[str, Any]:
    of_service.add(tally)
    return {
        "path": route.pattern,
        "methods": list(route.methods or ("all",)),
        "service": route.upstream.name,
        "requests": tally.requests,
        "rate": round(tally.requests / span, 3),
        "p95": _rounded(tally.quantile(0.95)),
        "failed": tally.failed,
        "limited": tally.limited,
    }


def _service_row(upstream: Upstream, tally: Tally, span: float) -> dict[str, Any]:
    circuit = None
    if upstream.circuit is not None:
        status = upstream.circuit.status()
        circuit = {
            "state": str(status.state),
            "forced": status.forced,
            "retry_in": _rounded(status.retry_in),
            "failures": status.failures,
            "total": status.total,
        }
    return {
        "name": upstream.name,
        "circuit": circuit,
        "targets": [{"url": target.name, "state": _state(target)} for target in upstream.targets],
        "requests": tally.requests,
        "rate": round(tally.requests / span, 3),
        "failed": tally.failed,
    }


def _state(target: Target) -> str:
    if not target.healthy:
        return "unhealthy"
    return "healthy" if target.available else "set aside"


def _plots(seconds: Iterable[Second]) -> dict[str, Any]:
    samples = list(seconds)
    return {
        "length": SECONDS,
        "requests": [round(sample.requests, 2) for sample in samples],
        "failed": [round(sample.failed, 2) for sample in samples],
        "p50": [_rounded(sample.p50) for sample in samples],
        "p95": [_rounded(sample.p95) for sample in samples],
        "p99": [_rounded(sample.p99) for sample in samples],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
