"""What a stream of HTTP/2 asks of its connection."""

from __future__ import annotations

from typing import Any, Protocol

from apigw.wire.http2.bounds import Bounds
from apigw.wire.http2.numbers import Numbers
from apigw.wire.server import Server


class Connection(Protocol):
    """``HTTP2Channel`` is one."""

    transport: Any
    factory: Server
    peer: bytes
    secure: bool
    writing_paused: bool
    """The client does not read what is written."""
    send_window: int
    bounds: Bounds
    numbers: Numbers
    waiting: dict[Any, None]
    """Streams that the window or the transport holds up."""

    def seconds(self) -> float: ...

    def emit(self, data: bytes) -> None:
        """Send this with the next ``flush``, or before if it is much."""

    def emit_head(self, number: int, block: bytes, end: bool) -> None: ...

    def flush(self) -> None: ...

    def took_some(self) -> bool:
        """Whether the client has taken bytes since this was last asked."""

    def stream_closed(self, stream: Any) -> None: ...
