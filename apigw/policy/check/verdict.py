# Compiled: see docs/decisions/compiled.md
"""What a checker is asked about a request, and what its answer means."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, final

from apigw import errors
from apigw.contract.exchange import Exchange
from apigw.contract.principal import IDENTITY
from apigw.errors import GatewayError
from apigw.wire.headers import HOP_BY_HOP, Header, Headers, is_grpc
from apigw.wire.request import UNIX_PEER

REFUSED: Final = frozenset({401, 403}) | frozenset(range(300, 400)) - {304}
"""304 answers a request with a condition, which the checker has not got."""

_NOT_PASSED_ON: Final = HOP_BY_HOP | frozenset(b"content-length date server via x-request-id alt-svc".split())


@final
class Verdict:
    """The checker has answered. ``taken``: what the service gets; ``status`` is 0 if the request passes."""

    def __init__(self, taken: Headers, status: int = 0, headers: Sequence[Header] = (), body: bytes = b"") -> None:
        self.taken = taken
        self.status = status
        self.headers = headers
        self.body = body


def judge(status: int, fields: Headers, body: bytes, take: frozenset[bytes]) -> Verdict | None:
    """The verdict in an answer; None if there is none in it."""
    if 200 <= status < 300:
        return Verdict([field for field in fields if field[0] in take])
    if status in REFUSED:
        return Verdict([], status, [field for field in fields if field[0] not in _NOT_PASSED_ON], body)
    return None


def refusal(verdict: Verdict, exchange: Exchange) -> GatewayError:
    """The error with which a request is refused. A call of gRPC cannot follow a redirect."""
    status = verdict.status
    request = exchange.request
    if status < 400 and request.method == b"POST" and is_grpc(request.headers):
        status = 403
    return errors.CheckRefused(status, verdict.headers, verdict.body)


def question(exchange: Exchange, send: Sequence[bytes]) -> Headers:
    """The fields that a checker gets. ``send`` are names in lower case; those of identity are the gateway's own."""
    request = exchange.request
    principal = exchange.principal
    asked: Headers = []
    for name in send:
        if name in IDENTITY:
            if principal is not None:
                asked += [field for field in principal.fields if field[0] == name]
        elif name == b"x-request-id":
            asked.append((name, exchange.id))
        else:
            asked += [field for field in exchange.headers if field[0] == name]
    asked.append((b"x-forwarded-method", request.method))
    asked.append((b"x-forwarded-proto", b"https" if exchange.is_https else b"http"))
    if request.authority:
        asked.append((b"x-forwarded-host", request.authority))
    asked.append((b"x-forwarded-uri", request.uri))
    address = exchange.peers.client_address(request)
    if address != UNIX_PEER:
        asked.append((b"x-forwarded-for", address))
    return asked


def digest_of(asked: Headers) -> bytes:
    """The same for the same question only. It keeps no credential in memory."""
    hashed = blake2b(digest_size=32)
    for name, value in asked:
        hashed.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
    return hashed.digest()
