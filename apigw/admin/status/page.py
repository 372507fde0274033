"""The status page of the admin listener, and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from apigw.admin.status.history import SECONDS, History, Second, Tally
from apigw.contract.exchange import Route
from apigw.contract.resource import JSON, Leaf, respond
from apigw.ops.series import METHODS
from apigw.process.snapshot import Snapshot
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.headers import Headers
from apigw.wire.web_request import WebRequest

MAX_AGE = 0.5
"""Seconds for which a document is cached."""
AT_A_TIME = 50
"""Number of routes that are processed before the reactor runs other work."""

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content Security Policy Level 3: no inline script or style, nothing from other origins."""

_FILES = {
    b"/": ("page.html", b"text/html; charset=utf-8"),
    b"/status.js": ("status.js", b"text/javascript; charset=utf-8"),
    b"/status.css": ("status.css", b"text/css; charset=utf-8"),
}

Build = Callable[[], Iterator[dict[str, Any] | None]]
"""Makes a document in several steps: yields None after each, and the document at the end."""


class Content(Leaf):
    """A resource with the bytes that a callable returns."""

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

    def render_GET(self, request: WebRequest) -> int:
        body = self._content()
        respond(request, 200, [*self._headers, (b"content-length", b"%d" % len(body))], body)
        return NOT_DONE_YET


class Live(Leaf):
    """A document that is made on request, in steps, so that it does not delay traffic. Concurrent requests share it."""

    def __init__(self, build: Build, clock: IReactorTime) -> None:
        super().__init__()
        self._build = build
        self._clock = clock
        self._cooperator = Cooperator(lambda: lambda: True, lambda step: clock.callLater(0, step))
        self._waiting: list[WebRequest] = []
        self._made = b""
        self._made_at = float("-inf")

    def render_GET(self, request: WebRequest) -> int:
        if self._clock.seconds() - self._made_at < MAX_AGE:
            self._send(request)
            return NOT_DONE_YET
        self._waiting.append(request)
        if len(self._waiting) == 1:
            self._cooperator.coiterate(self._steps()).addBoth(self._built)
        return NOT_DONE_YET

    def _steps(self) -> Iterator[None]:
        for made in self._build():
            if made is not None:
                self._made = orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE)
            yield

    def _built(self, result: object) -> None:
        waiting, self._waiting = self._waiting, []
        if not isinstance(result, Failure):
            self._made_at = self._clock.seconds()
        for request in waiting:
            if isinstance(result, Failure):
                request.processingFailed(result)
            elif not request.finished:
                self._send(request)

    def _send(self, request: WebRequest) -> None:
        length = (b"content-length", b"%d" % len(self._made))
        respond(request, 200, [(b"content-type", JSON), (b"cache-control", b"no-store"), length], self._made)


def page(build: Build, clock: IReactorTime) -> dict[bytes, IResource]:
    """The resources of the page by path. ``build`` makes the document of the page."""
    folder = files("apigw.admin.status")
    resources: dict[bytes, IResource] = {}
    for path, (name, content_type) in _FILES.items():
        resources[path] = Content(content_type, partial(bytes, (folder / name).read_bytes()))
    resources[b"/status.json"] = Live(build, clock)
    return resources


def document(facts: Mapping[str, Any], snapshot: Snapshot, history: History) -> Iterator[dict[str, Any] | None]:
    """The document of the page, ``facts`` about the process included. Times are seconds before now."""
    routes: list[dict[str, Any]] = []
    for others in _by_pattern(snapshot).values():
        for route in others:
            routes.append(_route_row(route, _tally(route, others, history)))
            if not len(routes) % AT_A_TIME:
                yield None
    sums = {upstream.name: _Sum() for upstream in snapshot.upstreams.values()}
    for row in routes:
        sums[row["service"]].add(row)
    yield {
        **facts,
        "history": _plots(history.seconds),
        "services": [_service_row(upstream, sums[upstream.name]) for upstream in snapshot.upstreams.values()],
        "routes": routes,
    }


class _Sum:
    """What the routes of one service have together."""

    requests = failed = 0
    rate = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        self.requests += row["requests"]
        self.failed += row["failed"]
        self.rate += row["rate"]


def _by_pattern(snapshot: Snapshot) -> dict[str, list[Route]]:
    found: dict[str, list[Route]] = {}
    for route in snapshot.routes:
        found.setdefault(route.pattern, []).append(route)
    return found


def _tally(route: Route, others: list[Route], history: History) -> Tally | None:
    """The last minute of a route. Those of one pattern share their series, and are told apart by method."""
    total = None
    for method, tally in history.lately(route.pattern).items():
        if len(others) == 1 or next((other for other in others if _takes(other, method)), others[-1]) is route:
            if total is None:
                total = tally
            else:
                total.add(tally)
    return total


def _takes(route: Route, method: str) -> bool:
    methods = route.methods
    if methods is None or method in methods:
        return True
    return (method == "HEAD" and "GET" in methods) or (method == "OTHER" and not METHODS.issuperset(methods))


def _route_row(route: Route, tally: Tally | None) -> dict[str, Any]:
    return {
        "path": route.pattern,
        "methods": list(route.methods or ("all",)),
        "service": route.service,
        "requests": tally.requests if tally else 0,
        "rate": round(tally.requests / tally.seconds, 3) if tally else 0.0,
        "p95": _rounded(tally.quantile(0.95)) if tally else None,
        "failed": tally.failed if tally else 0,
        "limited": tally.limited if tally else 0,
    }


def _service_row(upstream: Upstream, total: _Sum) -> dict[str, Any]:
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
        "requests": total.requests,
        "rate": round(total.rate, 3),
        "failed": total.failed,
    }


def _state(target: Target) -> str:
    if not target.healthy:
        return "unhealthy"
    return "healthy" if target.available else "ejected"


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
