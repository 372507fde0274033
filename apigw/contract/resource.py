"""Resources of ``twisted.web`` for answers of the gateway itself."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from apigw.errors import GatewayError, MethodNotAllowed, render
from apigw.wire.headers import Headers
from apigw.wire.web_request import WebRequest

JSON = b"application/json"


def respond(request: WebRequest, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete answer, with the request's id in ``X-Request-ID`` if it has one."""
    if request.identifier:
        headers = [*headers, (b"x-request-id", request.identifier)]
    request.respond(status, headers, body)


def answer(request: WebRequest, status: int, document: object) -> int:
    """Send ``document`` as JSON, with ``Cache-Control: no-store``. Returns ``NOT_DONE_YET``, for ``render``."""
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
    """A leaf of the tree. A method without a ``render_METHOD`` raises ``MethodNotAllowed``, the gateway's own 405."""

    isLeaf = True

    def render(self, request: WebRequest) -> Any:
        render = getattr(self, "render_" + request.method.decode("latin-1"), None)
        methods = {name.removeprefix("render_").encode() for name in dir(self) if name.startswith("render_")}
        if b"GET" not in methods:
            methods.discard(b"HEAD")  # which Resource has, as a GET without its body
        if render is None or request.method not in methods:
            raise MethodNotAllowed(
                "This path does not allow this method; see Allow.", [(b"allow", b", ".join(sorted(methods)))]
            )
        return render(request)


def answer_later(request: WebRequest, document: Deferred[Any]) -> int:
    """``answer`` with 200 and ``document`` when it fires, or with an error if it fails. Unless the client has left."""

    def fired(document: Any) -> None:
        if not request.finished:
            answer(request, 200, document)

    document.addCallback(fired).addErrback(unless_cancelled, request)
    return NOT_DONE_YET


class Document(Leaf):
    """Answers GET with the return value of a callable, or of its Deferred, as JSON."""

    def __init__(self, document: Callable[[], Any]) -> None:
        super().__init__()
        self._document = document

    def render_GET(self, request: WebRequest) -> int:
        return answer_later(request, maybeDeferred(self._document))


def unless_cancelled(failure: Failure, request: WebRequest) -> None:
    """An errback that answers a failure with an error, unless the request was cancelled because the client left."""
    if failure.check(CancelledError):
        return
    error: Any = failure.value
    if not isinstance(error, GatewayError):
        request.processingFailed(failure)
    elif not request.finished:
        respond(request, *render(error, request.identifier.decode("ascii")))
