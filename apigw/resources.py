"""The leaf resources: what the gateway answers by itself, on the public port and on the admin listener."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Any

from twisted.web.error import UnsupportedMethod
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from apigw.errors import MethodNotAllowed
from apigw.ops.health import Readiness, Report
from apigw.wire.request import Request

JSON = b"application/json"


def answer(request: Request, status: int, document: object) -> int:
    """Respond with JSON that no cache keeps."""
    body = dumps(document).encode("ascii") + b"\n"
    headers = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    request.respond(status, headers, body)
    return NOT_DONE_YET


class Leaf(Resource):
    """A resource whose refusals look like the gateway's: a method that it does not have is 405."""

    isLeaf = True

    def render(self, request: Request) -> Any:
        try:
            return super().render(request)
        except UnsupportedMethod as error:
            allow = b", ".join(sorted(error.allowedMethods))
            raise MethodNotAllowed("This path has other methods.", [(b"allow", allow)]) from None


class Health(Leaf):
    """Liveness: the process serves."""

    def render_GET(self, request: Request) -> int:
        return answer(request, 200, {"status": "ok"})


class Ready(Leaf):
    """Readiness. ``detailed`` names each check, which is for the admin listener only."""

    def __init__(self, readiness: Readiness, detailed: bool) -> None:
        super().__init__()
        self._readiness = readiness
        self._detailed = detailed

    def render_GET(self, request: Request) -> int:
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

    def render_GET(self, request: Request) -> int:
        return answer(request, 200, self._document())
