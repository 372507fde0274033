# Compiled: see docs/decisions/compiled.md
"""Cross-origin requests, answered for the services: the CORS protocol of the Fetch standard."""

from __future__ import annotations

from apigw.contract.exchange import Answer, Exchange, Head, Hook, Outcome, Route, Stage
from apigw.policy.cors.model import Cors
from apigw.routing.router import Router
from apigw.wire.headers import Headers, first
from apigw.wire.request import Request

_DECIDED_HERE = frozenset({b"access-control-allow-origin", b"access-control-allow-credentials"})


def cors_headers(cors: Cors, request: Request) -> Headers:
    """What a response must carry for the page that asked to be allowed to read it; only ``Vary`` for other pages."""
    any_origin = "*" in cors.origins
    headers: Headers = [] if any_origin else [(b"vary", b"Origin")]
    origin = first(request.headers, b"origin")
    if origin is None or not (any_origin or origin.decode("latin-1") in cors.origins):
        return headers
    headers.append((b"access-control-allow-origin", b"*" if any_origin else origin))
    if cors.credentials:
        headers.append((b"access-control-allow-credentials", b"true"))
    return headers


def without_cors(headers: Headers) -> Headers:
    """A service's fields without those that are decided here: two permissions are none, says the Fetch standard."""
    return [header for header in headers if header[0] not in _DECIDED_HERE]


class AnswerPages(Hook):
    """Lets the pages of a route's origins read its answers."""

    def __init__(self, cors: Cors) -> None:
        self.cors = cors

    def run(self, exchange: Exchange, head: Head) -> None:
        headers = head.headers if head.own else without_cors(head.headers)
        head.headers = [*headers, *cors_headers(self.cors, exchange.request)]


class Preflight(Stage):
    """Answers a browser's question whether a page may send the request that it describes."""

    def __init__(self) -> None:
        self.router: Router[Route] | None = None
        """Where the request that is asked about would find its route."""

    def run(self, exchange: Exchange) -> Outcome:
        request = exchange.request
        if request.method != b"OPTIONS" or self.router is None:
            return None
        wanted = first(request.headers, b"access-control-request-method")
        if wanted is None or first(request.headers, b"origin") is None:
            return None
        match = self.router.match(wanted, request.path)
        cors = None if match is None else _cors_of(match.value)
        if match is None or cors is None:
            return None
        exchange.route = match.value
        answer: Headers = []
        if any(name == b"access-control-allow-origin" for name, _ in cors_headers(cors, request)):
            methods = self.router.allow(request.path) if match.methods is not None else (wanted,)
            answer.append((b"access-control-allow-methods", b", ".join(methods)))
            fields = first(request.headers, b"access-control-request-headers")
            if fields:
                answer.append((b"access-control-allow-headers", fields))
            answer.append((b"access-control-max-age", b"%d" % cors.max_age))
        return Answer(204, answer)


def _cors_of(route: Route) -> Cors | None:
    return next((hook.cors for hook in route.hooks if isinstance(hook, AnswerPages)), None)
