# Compiled: see docs/decisions/compiled.md
"""The CORS protocol of the Fetch standard, on behalf of the services."""

from __future__ import annotations

from collections.abc import Iterable

from apigw.contract.exchange import Answer, Exchange, Head, Hook, Outcome, Route, Stage
from apigw.policy.cors.model import Cors
from apigw.routing.router import Router
from apigw.routing.trie import Match
from apigw.wire.headers import Headers, first
from apigw.wire.request import Request

_DECIDED_HERE = frozenset({b"access-control-allow-origin", b"access-control-allow-credentials"})


def cors_headers(cors: Cors, request: Request) -> Headers:
    """The CORS headers of a response for an allowed origin; only ``Vary`` for other origins."""
    any_origin = "*" in cors.origins
    headers: Headers = [] if any_origin else [(b"vary", b"Origin")]
    origin = first(request.headers, b"origin")
    if origin is None or not (any_origin or origin.decode("latin-1") in cors.origins):
        return headers
    headers.append((b"access-control-allow-origin", b"*" if any_origin else origin))
    if cors.credentials:
        headers.append((b"access-control-allow-credentials", b"true"))
    if cors.expose_headers:
        headers.append((b"access-control-expose-headers", _listed(cors.expose_headers)))
    return headers


def _allows(cors: Cors, request: Request) -> bool:
    """Whether the page that asks is of an origin that may call."""
    return any(name == b"access-control-allow-origin" for name, _ in cors_headers(cors, request))


def _listed(names: Iterable[str]) -> bytes:
    return ", ".join(names).encode("ascii")


def without_cors(headers: Headers) -> Headers:
    """A service's headers without its CORS headers: by the Fetch standard, two permissions count as none."""
    return [header for header in headers if header[0] not in _DECIDED_HERE]


class AnswerPages(Hook):
    """Adds the CORS headers to the answers of a route."""

    def __init__(self, cors: Cors) -> None:
        self.cors = cors

    def run(self, exchange: Exchange, head: Head) -> None:
        headers = head.headers if head.own else without_cors(head.headers)
        head.headers = [*headers, *cors_headers(self.cors, exchange.request)]


class Preflight(Stage):
    """Answers preflights."""

    def __init__(self) -> None:
        self.router: Router[Route] | None = None
        """Finds the route of the request that a preflight is for."""

    def run(self, exchange: Exchange) -> Outcome:
        request = exchange.request
        if request.method != b"OPTIONS" or self.router is None:
            return None
        wanted = first(request.headers, b"access-control-request-method")
        if wanted is None or first(request.headers, b"origin") is None:
            return None
        match = _agreed(self.router, wanted, request)
        cors = None if match is None else _cors_of(match.value)
        if match is None or cors is None:
            return None
        exchange.route = match.value
        answer: Headers = []
        if _allows(cors, request):
            methods = (wanted,) if match.methods is None else self._methods(self.router, request)
            answer.append((b"access-control-allow-methods", b", ".join(methods)))
            if cors.allow_headers is None:
                fields = first(request.headers, b"access-control-request-headers")
            else:
                fields = _listed(cors.allow_headers)
            if fields:
                answer.append((b"access-control-allow-headers", fields))
            answer.append((b"access-control-max-age", b"%d" % cors.max_age))
        return Answer(204, answer)

    def _methods(self, router: Router[Route], request: Request) -> Iterable[bytes]:
        """Those of the path whose own routes let the page call: a browser remembers them all."""
        for method in router.allow(request.path, request.authority):
            match = _agreed(router, method, request)
            cors = None if match is None else _cors_of(match.value)
            if cors is not None and _allows(cors, request):
                yield method


def _agreed(router: Router[Route], method: bytes, request: Request) -> Match[Route] | None:
    """The first of the routes that a request after the preflight could take, if all have the same ``cors``: a preflight
    has neither its headers nor its cookies, by which they may be told apart."""
    first: Match[Route] | None = None
    for match in router.candidates(method, request.path, request.authority):
        if first is None:
            first = match
            continue
        theirs: object = _cors_of(match.value)
        if theirs != _cors_of(first.value):
            return None
    return first


def _cors_of(route: Route) -> Cors | None:
    return next((hook.cors for hook in route.hooks if isinstance(hook, AnswerPages)), None)
