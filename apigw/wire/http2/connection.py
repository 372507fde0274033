"""The interface of an HTTP/2 connection towards its streams."""

from __future__ import annotations

from typing import Any, Protocol

from apigw.wire.http2.bounds import Bounds
from apigw.wire.http2.numbers import Numbers
from apigw.wire.server import Server


class Connection(Protocol):
    """Implemented by ``HTTP2Channel``."""

    transport: Any
    factory: Server
    peer: bytes
    secure: bool
    writing_paused: bool
    """The transport's buffer to the client is full."""
    send_window: int
    bounds: Bounds
    numbers: Numbers
    waiting: dict[Any, None]
    """Streams that wait for the connection's window or the transport."""

    def seconds(self) -> float: ...

    def emit(self, data: bytes) -> None:
        """Send ``data`` with the next ``flush``, or earlier if much is buffered."""

    def emit_head(self, number: int, block: bytes, end: bool) -> None: ...

    def flush(self) -> None: ...

    def took_some(self) -> bool:
        """Whether the client has read bytes since the last call."""

    def stream_closed(self, stream: Any) -> None: ...
