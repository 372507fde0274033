"""The leaf resources: what the gateway answers by itself, on the public port and on the admin listener."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from apigw.errors import MethodNotAllowed, NotFound
from apigw.ops.exposition import Exposition, Page
from apigw.ops.readiness import Readiness, Report
from apigw.policy.oauth.endpoint import TokenEndpoint, TokenResponse
from apigw.wire.headers import Headers
from apigw.wire.web_request import WebRequest

JSON = b"application/json"


def respond(request: WebRequest, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer, with the name that the request has in the log."""
    if request.identifier:
        headers = [*headers, (b"x-request-id", request.identifier)]
    request.respond(status, headers, body)


def answer(request: WebRequest, status: int, document: object) -> int:
    """Respond with JSON that no cache keeps."""
    body = dumps(document).encode("ascii") + b"\n"
    headers = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    respond(request, status, headers, body)
    return NOT_DONE_YET


class Leaf(Resource):
    """A resource whose refusals look like the gateway's: a method that it does not have is 405."""

    isLeaf = True

    def render(self, request: WebRequest) -> Any:
        render = getattr(self, "render_" + request.method.decode("latin-1"), None)
        methods = {name.removeprefix("render_").encode() for name in dir(self) if name.startswith("render_")}
        if b"GET" not in methods:
            methods.discard(b"HEAD")  # which Resource has, as a GET without its body
        if render is None or request.method not in methods:
            raise MethodNotAllowed("This path has other methods.", [(b"allow", b", ".join(sorted(methods)))])
        return render(request)


class Health(Leaf):
    """Liveness: the process serves."""

    def render_GET(self, request: WebRequest) -> int:
        return answer(request, 200, {"status": "ok"})


class Ready(Leaf):
    """Readiness. ``detailed`` names each check, which is for the admin listener only."""

    def __init__(self, readiness: Readiness, detailed: bool) -> None:
        super().__init__()
        self._readiness = readiness
        self._detailed = detailed

    def render_GET(self, request: WebRequest) -> int:
        def reported(report: Report) -> None:
            document: dict[str, object] = {"status": "ready" if report.ready else "not ready"}
            if self._detailed:
                document["checks"] = {**dict.fromkeys(report.passed, "ok"), **report.failed}
            if not request.finished:
                answer(request, 200 if report.ready else 503, document)

        self._readiness.report().addCallback(reported).addErrback(request.processingFailed)
        return NOT_DONE_YET


class Document(Leaf):
    """What a callable returns, as JSON."""

    def __init__(self, document: Callable[[], Any]) -> None:
        super().__init__()
        self._document = document

    def render_GET(self, request: WebRequest) -> int:
        return answer(request, 200, self._document())


class Token(Leaf):
    """``POST /oauth/token`` (RFC 6749 §3.2)."""

    def __init__(
        self, endpoint: TokenEndpoint, address: Callable[[WebRequest], str], now: Callable[[], float]
    ) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._address = address
        self._now = now

    def render_POST(self, request: WebRequest) -> int:
        def answered(response: TokenResponse) -> None:
            if not request.finished:
                respond(request, response.status, response.headers, response.body)

        body = request.content.getvalue()
        answering = self._endpoint.respond(request.headers, body, self._address(request), self._now())
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addCallback(answered).addErrback(_unless_cancelled, request)
        return NOT_DONE_YET


def _unless_cancelled(failure: Failure, request: WebRequest) -> None:
    if not failure.check(CancelledError):
        request.processingFailed(failure)


class MetricsPage(Leaf):
    """``/metrics``. Who is not ``allowed`` is told that there is no such page."""

    def __init__(self, exposition: Exposition, allowed: Callable[[WebRequest], bool]) -> None:
        super().__init__()
        self._exposition = exposition
        self._allowed = allowed

    def render_GET(self, request: WebRequest) -> int:
        if not self._allowed(request):
            raise NotFound("There is nothing here.")

        def rendered(page: Page) -> None:
            content_type, text = page
            if not request.finished:
                headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(text))]
                respond(request, 200, headers, text)

        accept = b",".join(value for name, value in request.headers if name == b"accept")
        asking = self._exposition.page(accept)
        request.notifyFinish().addErrback(lambda _: asking.cancel())
        asking.addCallback(rendered).addErrback(_unless_cancelled, request)
        return NOT_DONE_YET
