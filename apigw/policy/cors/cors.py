# Compiled: see docs/decisions/compiled.md
"""Cross-origin requests, answered for the services: the CORS protocol of the Fetch standard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apigw.config.model import Cors
from apigw.wire.headers import Headers, first
from apigw.wire.request import Request

if TYPE_CHECKING:
    from apigw.process.snapshot import Route
    from apigw.proxy.pipeline import Exchange
    from apigw.routing.router import Router

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


def preflight(exchange: Exchange, router: Router[Route]) -> bool:
    """Answer a browser's question whether a page may send the request that it describes. False where this is none."""
    request = exchange.request
    wanted = first(request.headers, b"access-control-request-method")
    if wanted is None or first(request.headers, b"origin") is None:
        return False
    match = router.match(wanted, request.path)
    if match is None or match.value.cors is None:
        return False
    exchange.route = match.value
    exchange.own_headers = headers = cors_headers(match.value.cors, request)
    answer: Headers = []
    if len(headers) > 1 or (headers and headers[0][0] != b"vary"):
        methods = router.allow(request.path) if match.methods is not None else (wanted,)
        answer.append((b"access-control-allow-methods", b", ".join(methods)))
        fields = first(request.headers, b"access-control-request-headers")
        if fields:
            answer.append((b"access-control-allow-headers", fields))
        answer.append((b"access-control-max-age", b"%d" % match.value.cors.max_age))
    exchange.respond(204, answer)
    return True
