"""The Resource trees of the public and the admin listener."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from urllib.parse import unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource, getChildForRequest

from apigw import errors
from apigw.contract.exchange import new_request_id, request_id
from apigw.errors import GatewayError
from apigw.proxy.refusals import refused
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest

MAX_RESOURCE_BODY = 64 * 1024

Account = Callable[[Request, str, float, bytes, "GatewayError | None"], None]
"""Told of each exchange that ended in a Resource: the request, the reserved path that it took, when it began, the
client's address, and a refusal."""


class Site:
    """The tree of Resources of a listener.

    ``client_address`` returns the client's address of a request; ``admit`` raises the error for one that may see none.
    """

    displayTracebacks = False

    def __init__(
        self,
        account: Account,
        seconds: Callable[[], float],
        client_address: Callable[[Request], bytes],
        admit: Callable[[WebRequest], object] = lambda _: None,
    ) -> None:
        self._admit = admit
        self._client_address = client_address
        self._account = account
        self._seconds = seconds
        self.reserve({})

    def reserve(self, resources: dict[bytes, IResource]) -> None:
        """Set the Resources, by path."""
        self._root = Resource()
        for path, resource in resources.items():
            self._put(path, resource)
        self.reserved = frozenset(resources)

    def on_request(self, request: Request) -> None:
        """A request's headers are complete. Its Resource is rendered when the body has been read."""
        request.identifier = request_id(request.headers)
        web = WebRequest(request)
        web.site = self  # type: ignore[assignment]  # what twisted.web asks of a site
        request.listener = body = _Body(web, self._render)
        began = self._seconds()
        web.notifyFinish().addErrback(lambda _: None).addCallback(lambda _: self._ended(request, began, body.refusal))
        if request.content_length is not None and request.content_length > MAX_RESOURCE_BODY:
            body.refuse(errors.BodyTooLarge(f"The body may have up to {MAX_RESOURCE_BODY} bytes."))
        else:
            request.read_body()

    def _ended(self, request: Request, began: float, refusal: GatewayError | None) -> None:
        path = request.path.decode("ascii") if request.path in self.reserved else "unmatched"
        self._account(request, path, began, self._client_address(request), refusal)

    def _render(self, request: WebRequest, refuse: Callable[[GatewayError], None]) -> None:
        request.prepath = []
        request.postpath = [unquote_to_bytes(segment) for segment in request.path[1:].split(b"/")]
        try:
            self._admit(request)
            if request.path not in self.reserved:
                raise errors.NotFound("There is nothing here.")
            request.render(getChildForRequest(self._root, request))
        except GatewayError as error:
            refuse(error)
        except Exception:
            request.processingFailed(Failure())

    def _put(self, path: bytes, resource: IResource) -> None:
        *parents, last = path[1:].split(b"/")
        node = self._root
        for name in parents:
            child = node.children.get(name)
            if child is None:
                child = Resource()
                node.putChild(name, child)
            node = child
        node.putChild(last, resource)


class _Body:
    """Reads a body into ``request.content``, then renders."""

    refusal: GatewayError | None = None

    def __init__(self, web: WebRequest, render: Callable[[WebRequest, Callable[[GatewayError], None]], None]) -> None:
        self._web = web
        self._request = web.request
        self._render = render
        self._content = BytesIO()

    def body_received(self, data: bytes) -> None:
        if self._content.tell() + len(data) > MAX_RESOURCE_BODY:
            self.refuse(errors.BodyTooLarge(f"The body may have up to {MAX_RESOURCE_BODY} bytes."))
        elif not self._request.finished:
            self._content.write(data)

    def body_finished(self) -> None:
        self._content.seek(0)
        self._web.content = self._content
        self._render(self._web, self.refuse)

    def client_failed(self, error: Refused | ClientLost) -> None:
        if isinstance(error, Refused):
            self.refuse(refused(error))

    def refuse(self, error: GatewayError) -> None:
        request = self._request
        if request.finished:
            return
        self.refusal = error
        if request.started:
            request.abort()
            return
        status, headers, body = errors.render(error, request.identifier.decode("ascii"))
        request.respond(status, [*headers, (b"x-request-id", request.identifier)], body)


AccountRefusal = Callable[[GatewayError, bytes, bytes, bytes, int, bytes], None]
"""Told of each refusal of the wire: the error, request id, peer, protocol, the size of the answer's body, and with what
the request began."""


def refusal_answer(
    account: AccountRefusal, refusal: Refused, peer: bytes, secure: bool, protocol: bytes
) -> tuple[int, Headers, bytes]:
    """The answer to a request that could not be parsed."""
    identifier = new_request_id()
    error = refused(refusal)
    status, headers, body = errors.render(error, identifier.decode("ascii"))
    account(error, identifier, peer, protocol, len(body), refusal.began_with)
    return status, [*headers, (b"x-request-id", identifier)], body
