"""The leaf resources: what the gateway answers by itself, on the public port and on the admin listener."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Any

from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

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
    """Answers reads; other methods are 405 (``twisted.web`` names those that there are)."""

    isLeaf = True


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
        try:
            document = self._document()
        except Exception:
            request.processingFailed(Failure())
            return NOT_DONE_YET
        return answer(request, 200, document)
