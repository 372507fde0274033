# Compiled: see docs/decisions/compiled.md
"""The interfaces of HTTP/2 connections towards their streams."""

from __future__ import annotations

from typing import Any

from apigw.wire.deadlines import Deadlines
from apigw.wire.http2.endpoint import Endpoint
from apigw.wire.http2.frames import PREFACE, Code
from apigw.wire.http2.numbers import Numbers
from apigw.wire.server import Server


class Connection(Endpoint):
    """A connection of a client: the base of ``HTTP2Channel``."""

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


class ServiceConnection(Endpoint):
    """A connection to a service: the base of ``HTTP2Client``. Its streams are ``HTTP2Exchange``."""

    def __init__(self, deadlines: Deadlines, scheme: bytes) -> None:
        super().__init__(b"", deadlines.seconds)
        self.scheme = scheme
        self.used = False
        """Whether an answer has arrived on this connection."""
        self.largest_head: int | None = None
        """Bytes of a request's fields that the service takes, as ``size_of`` counts them; None if it has not said."""

    def open(self, exchange: Any) -> None:
        """Open a stream for an exchange."""
        raise NotImplementedError

    def ended(self, exchange: Any, code: Code | None) -> None:
        """An exchange has ended. With a ``code``, its stream is still open and is reset."""
        raise NotImplementedError

    def check_alive(self) -> None:
        """An answer is late: send a PING, to detect a dead connection."""
        raise NotImplementedError
