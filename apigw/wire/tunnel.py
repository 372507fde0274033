"""A tunnel: copies bytes between two connections, as for a WebSocket after its handshake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.reactor.layers import replace_protocol

CLOSE = bytes((0x88, 2)) + (1001).to_bytes(2, "big")
"""A close frame with code 1001, going away (RFC 6455 §5.5.1 and §7.4.1)."""


class End(NamedTuple):
    """A connection that becomes one end of a tunnel. ``close`` closes it when what was written is sent, or the other
    side does not read that in time."""

    transport: Any
    early: bytes
    """Bytes that arrived after the handshake."""
    close: Callable[[], None]


def join(client: End, upstream: End, deadlines: Deadlines, idle_timeout: float) -> Deferred[None]:
    """Copy in both directions, with back-pressure, until either side closes. Early bytes are sent first.

    When one side is lost, the other is closed. After ``idle_timeout`` seconds without data from either side, both are
    closed. Fires when both are gone. Cancelling closes both. Where neither side has ended it, the client gets a close
    frame, if one can be inserted.
    """
    return _Tunnel(client, upstream, deadlines, idle_timeout).done


class _Tunnel:
    def __init__(self, client: End, upstream: End, deadlines: Deadlines, idle_timeout: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self.deadline_passed())
        self._deadlines = deadlines
        self._idle_timeout = idle_timeout
        self._ends = [client, upstream]
        self.moved()
        deadlines.watch(self)
        self._frames = frames = Frames()
        frames.passed(upstream.early)
        _Side(self, upstream, client.transport, frames)
        connection = _Side(self, client, upstream.transport).before
        connection.say_at_the_end(frames.farewell)
        for source, sink in ((client, upstream), (upstream, client)):
            if source.early:
                sink.transport.write(source.early)

    def moved(self) -> None:
        self.deadline = self._deadlines.seconds() + self._idle_timeout

    def deadline_passed(self) -> None:
        self.deadline = NEVER
        farewell = self._frames.farewell()
        if farewell and len(self._ends) == 2:
            self._ends[0].transport.write(farewell)  # the client
        for end in self._ends:
            end.close()

    def lost(self, end: End) -> None:
        self._ends.remove(end)
        for other in self._ends:
            other.close()
        if not self._ends:
            self._deadlines.forget(self)
            if not self.done.called:  # by a cancel
                self.done.callback(None)


class _Side:
    """The new protocol of one end. Its ``connectionLost`` also calls that of the previous protocol."""

    def __init__(self, tunnel: _Tunnel, end: End, sink: Any, frames: Frames | None = None) -> None:
        self._tunnel = tunnel
        self._frames = frames
        self._end = end
        self._sink = sink
        self.before = replace_protocol(end.transport, self)
        sink.registerProducer(end.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._tunnel.moved()
        if self._frames is not None:
            self._frames.passed(data)
        self._sink.write(data)

    def connectionLost(self, reason: Failure) -> None:
        self.before.connectionLost(reason)
        self._tunnel.lost(self._end)


class Frames:
    """Finds the boundaries of frames in one direction of a WebSocket (RFC 6455 §5.2)."""

    def __init__(self) -> None:
        self._head = b""  # the beginning of a frame's head
        self._left = 0  # bytes left of a frame's payload
        self._closed = False

    @property
    def between(self) -> bool:
        """Whether a frame may be inserted now: the last one is complete, and was not a close frame."""
        return not (self._head or self._left or self._closed)

    def farewell(self) -> bytes:
        """A close frame, or nothing where none can be inserted."""
        return CLOSE if self.between else b""

    def passed(self, data: bytes) -> None:
        """Parse bytes that have been sent."""
        if len(data) <= self._left:
            self._left -= len(data)
            return
        data = self._head + data[self._left :]
        at = 0
        while (size := self._size(data, at)) and at + size <= len(data):
            at += size
        self._left = max(0, at + size - len(data)) if size else 0
        self._head = b"" if size else data[at:]

    def _size(self, data: bytes, at: int) -> int:
        """The size of the frame that begins at ``at``, with its head; 0 if the head is incomplete."""
        if len(data) < at + 2:
            return 0
        length = data[at + 1] & 0x7F
        more = {126: 2, 127: 8}.get(length, 0)
        head = 2 + more + (4 if data[at + 1] & 0x80 else 0)
        if len(data) < at + head:
            return 0
        if data[at] & 0x0F == 8:
            self._closed = True
        return head + (int.from_bytes(data[at + 2 : at + 2 + more], "big") if more else length)
