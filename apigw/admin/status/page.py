"""The status page of the admin listener, and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from gzip import compress
from importlib.resources import files
from typing import Any, Protocol

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from apigw.admin.circuits import Row
from apigw.admin.status.history import SECONDS, Second, Tally
from apigw.contract.exchange import Route
from apigw.contract.resource import JSON, Leaf, respond, unless_cancelled
from apigw.ops.series import METHODS, Key
from apigw.process.snapshot import Snapshot
from apigw.wire.headers import Headers, first
from apigw.wire.web_request import WebRequest

MAX_AGE = 0.5
"""Seconds for which a document is cached."""
COMPRESSED = 4096
"""Bytes above which a document is compressed, for who can read that."""
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

Build = Callable[[], Iterator[Any]]
"""Makes a document in several steps: yields None or what it waits for after each, and the document at the end."""

InSteps = Callable[[Iterator[Any]], Deferred[Any]]
"""Runs an iterator to its end, with other work of the reactor after each step. Waits for a Deferred that it yields."""


def in_steps(clock: IReactorTime) -> InSteps:
    return Cooperator(lambda: lambda: True, lambda step: clock.callLater(0, step)).coiterate


class Recent(Protocol):
    """A history: the last minutes by the second, and the last minute of each route by its methods."""

    @property
    def seconds(self) -> Iterable[Second]: ...
    def lately(self, path: Key) -> dict[str, Tally]: ...


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
        self._in_steps = in_steps(clock)
        self._waiting: list[WebRequest] = []
        self._made = b""
        self._made_at = float("-inf")

    def render_GET(self, request: WebRequest) -> int:
        if self._clock.seconds() - self._made_at < MAX_AGE:
            self._send(request)
            return NOT_DONE_YET
        self._waiting.append(request)
        if len(self._waiting) == 1:
            self._in_steps(self._steps()).addBoth(self._built)
        return NOT_DONE_YET

    def _steps(self) -> Iterator[Deferred[Any] | None]:
        for made in self._build():
            if isinstance(made, dict):
                self._made = orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE)
                yield None
            else:
                yield made

    def _built(self, result: object) -> None:
        waiting, self._waiting = self._waiting, []
        if not isinstance(result, Failure):
            self._made_at = self._clock.seconds()
        for request in waiting:
            if isinstance(result, Failure):
                unless_cancelled(result, request)
            elif not request.finished:
                self._send(request)

    def _send(self, request: WebRequest) -> None:
        headers: Headers = [(b"content-type", JSON), (b"cache-control", b"no-store"), (b"vary", b"accept-encoding")]
        body = self._made
        if len(body) > COMPRESSED and b"gzip" in (first(request.request.headers, b"accept-encoding") or b""):
            # Level 1: 60 KB take half a millisecond.
            body = compress(body, 1)
            headers.append((b"content-encoding", b"gzip"))
        respond(request, 200, [*headers, (b"content-length", b"%d" % len(body))], body)


@cache
def _content(name: str) -> bytes:
    """Read once: the workers have what their master has read before it forked them."""
    return (files("apigw.admin.status") / name).read_bytes()


def page(build: Build, catalogue: Build, clock: IReactorTime) -> dict[bytes, IResource]:
    """The resources of the page by path. ``build`` makes the document that is shown, ``catalogue`` that of routes."""
    resources: dict[bytes, IResource] = {
        path: Content(content_type, partial(bytes, _content(name))) for path, (name, content_type) in _FILES.items()
    }
    resources[b"/status.json"] = Live(build, clock)
    resources[b"/routes.json"] = Live(catalogue, clock)
    return resources


def document(
    facts: Mapping[str, Any], snapshot: Snapshot, history: Recent, circuits: Sequence[Row]
) -> Iterator[dict[str, Any] | None]:
    """The document of the page, ``facts`` and ``circuits`` of each service included. Times are seconds before now.

    ``routes`` are rows with the ``columns``, of those that had requests in the last minute. ``number`` is the place of
    the route in ``catalogue``.
    """
    rows: list[tuple[Any, ...]] = []
    sums = {service["service"]: _Sum() for service in circuits}
    number = 0
    for key, others in _by_series(snapshot).items():
        lately = history.lately(key)
        for route in others:
            tally = _tally(route, others, lately) if lately else None
            if tally is not None:
                rows.append((number, *_counts(tally)))
                sums.setdefault(route.service or "", _Sum()).add(tally)
            number += 1
            if not number % AT_A_TIME:
                yield None
    yield {
        **facts,
        "history": _plots(history.seconds),
        "services": [_service_row(service, sums[service["service"]]) for service in circuits],
        "columns": COLUMNS,
        "routes": rows,
    }


def catalogue(snapshot: Snapshot) -> Iterator[dict[str, Any] | None]:
    """All routes: what does not change from one second to the next."""
    rows = []
    for others in _by_series(snapshot).values():
        for route in others:
            methods = list(route.methods or ("all",))
            rows.append({"name": route.name, "path": route.pattern, "methods": methods, "service": route.service})
            if not len(rows) % AT_A_TIME:
                yield None
    yield {"routes": rows}


COLUMNS = ("number", "requests", "rate", "p95", "failed", "refused", "limited")
"""Of each route in the document: 1,500 of them that are busy are 60 KB, and 15 compressed."""


def _counts(tally: Tally) -> tuple[Any, ...]:
    rate, p95 = round(tally.requests / tally.seconds, 3), _rounded(tally.quantile(0.95))
    return tally.requests, rate, p95, tally.failed, tally.refused, tally.limited


class _Sum:
    """What the routes of one service have together."""

    requests = failed = 0
    rate = 0.0

    def add(self, tally: Tally) -> None:
        self.requests += tally.requests
        self.failed += tally.failed
        self.rate += tally.requests / tally.seconds


def _by_series(snapshot: Snapshot) -> dict[Key, list[Route]]:
    found: dict[Key, list[Route]] = {}
    for route in snapshot.routes:
        found.setdefault((route.pattern, route.name), []).append(route)
    return found


def _tally(route: Route, others: list[Route], lately: Mapping[str, Tally]) -> Tally | None:
    """The last minute of a route. Those of one pattern and name share their series, and are told apart by method."""
    total = None
    for method, tally in lately.items():
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


def _service_row(service: Row, total: _Sum) -> dict[str, Any]:
    circuit = None
    if service["state"] is not None:
        circuit = {name: service[name] for name in ("state", "forced", "retry_in", "failures", "total")}
    return {
        "name": service["service"],
        "circuit": circuit,
        "targets": [{"url": target["target"], "state": _state(target)} for target in service["targets"]],
        "requests": total.requests,
        "rate": round(total.rate, 3),
        "failed": total.failed,
    }


def _state(target: Row) -> str:
    if not target["healthy"]:
        return "unhealthy"
    return "healthy" if target["available"] else "ejected"


def _plots(seconds: Iterable[Second]) -> dict[str, Any]:
    samples = list(seconds)
    return {
        "length": SECONDS,
        "requests": [round(sample.requests, 2) for sample in samples],
        "failed": [round(sample.failed, 2) for sample in samples],
        "refused": [round(sample.refused, 2) for sample in samples],
        "p50": [_rounded(sample.p50) for sample in samples],
        "p95": [_rounded(sample.p95) for sample in samples],
        "p99": [_rounded(sample.p99) for sample in samples],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
