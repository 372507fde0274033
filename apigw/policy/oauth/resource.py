"""The token endpoint as a Resource."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.web.server import NOT_DONE_YET

from apigw.contract.resource import Leaf, respond, unless_cancelled
from apigw.policy.oauth.endpoint import TokenEndpoint, TokenResponse
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest


class Token(Leaf):
    """``POST /oauth/token`` (RFC 6749 §3.2)."""

    def __init__(
        self,
        endpoint: TokenEndpoint,
        addresses: Callable[[Request], Sequence[str]],
        now: Callable[[], float],
        issued: Callable[[WebRequest, TokenResponse], object],
    ) -> None:
        """``issued`` is told of each answer."""
        super().__init__()
        self._issued = issued
        self._endpoint = endpoint
        self._addresses = addresses
        self._now = now

    def render_POST(self, request: WebRequest) -> int:
        def answered(response: TokenResponse) -> None:
            self._issued(request, response)
            if not request.finished:
                respond(request, response.status, response.headers, response.body)

        body = request.content.getvalue()
        answering = self._endpoint.respond(request.headers, body, self._addresses(request.request), self._now())
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addCallback(answered).addErrback(unless_cancelled, request)
        return NOT_DONE_YET
