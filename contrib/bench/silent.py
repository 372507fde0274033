"""A client's connection, for what is measured in memory."""

from __future__ import annotations

from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream


class Silent(Stream):
    """Drops each answer."""

    def __init__(self, peer: bytes = b"203.0.113.9") -> None:
        super().__init__(peer, False)

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None: ...
