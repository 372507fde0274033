# Compiled: see docs/decisions/compiled.md
"""The interface of a client's HTTP/2 connection towards its streams."""

from __future__ import annotations

from typing import Any

from apigw.wire.http2.endpoint import Endpoint
from apigw.wire.http2.frames import PREFACE
from apigw.wire.http2.numbers import Numbers
from apigw.wire.server import Server


class Connection(Endpoint):
    """The base of ``HTTP2Channel``."""

    def __init__(self, factory: Server, peer: bytes, secure: bool) -> None:
        super().__init__(PREFACE, factory.deadlines.seconds)
        self.factory = factory
        self.peer = peer
        self.secure = secure
        self.numbers = Numbers()

    def took_some(self) -> bool:
        """Whether the client has read bytes since the last call."""
        raise NotImplementedError

    def stream_closed(self, stream: Any) -> None:
        raise NotImplementedError
