# Compiled: see docs/decisions/compiled.md
"""Sending: at the end of the turn, without copies of what is large, and with back-pressure."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, final

from apigw.wire.reactor.turns import Turns

MOST_HELD: Final = 16
"""Maximum writes that are sent as one. Then they are sent, so that back-pressure reaches the producer in time."""
HIGH_WATER: Final = 65536
"""Bytes that may wait here for the other side before its producer is paused, as with Twisted's transports."""
MOST_PIECES: Final = 64
"""Pieces that one call sends; the kernel takes up to 1,024 (IOV_MAX)."""
JOINED: Final = 16384
"""Bytes up to which several pieces are joined before they are sent: that is cheaper than to send them from where they
are."""

_write: Final = os.write  # found in C; ``os.write`` is looked up in the module each time


class Sending:
    """The half of ``SocketTransport`` that sends. What does not fit into the kernel's buffer waits in a queue."""

    def __init__(self, descriptor: int, reactor: Any) -> None:
        self.reactor = reactor
        self.connected = True
        self.disconnecting = False
        """Whether it closes when all is sent."""
        self.disconnected = False
        self.producer: Any = None
        self._descriptor = descriptor
        self._turns: Turns | None = reactor if isinstance(reactor, Turns) else None
        self._writing = False
        """Whether the reactor tells when there is room for more."""
        self._streaming = False
        self._producer_paused = False
        self._held: list[bytes] | None = None
        """What is sent at the end of the turn; None if this is not among the turn's writers."""
        self._queue: deque[bytes] = deque()
        self.queued = 0
        """Bytes in the queue, but for those of its first piece that are sent."""
        self._offset = 0
        """Bytes of the first piece that are sent."""
        self._half_closing = False
        self._half_closed = False

    def end_if_sent(self) -> None:
        """Close, or close half, if that was asked for, and nothing is left to send."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        if not data or not self.connected or self._half_closed:
            return
        held = self._held
        if held is not None:
            held.append(data)
            if len(held) == MOST_HELD:
                self._held = []
                self._send_all(held)
        elif (turns := self._turns) is not None and (turn := turns.writes_of_turn) is not None:
            self._held = [data]
            turn.append(self)
        else:
            self._send(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def held(self) -> int:
        """Bytes that are held until the end of the turn."""
        return sum([len(data) for data in self._held or ()])

    @final
    def send_held(self) -> None:
        """Send what is held, at the end of the turn, and close if that was asked for."""
        held, self._held = self._held, None
        if held:
            self._send_all(held)
        if self.disconnecting or self._half_closing:
            self.end_if_sent()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.connected and self.disconnecting and self._held is None:
            self._start_writing()

    @final
    def write_on(self) -> bool:
        """Send from the queue. Returns whether the connection is alive."""
        if self._queue and not self._send_queue():
            return False
        if not self._queue:
            self._stop_writing()
            self._sent_all()
        return True

    def _send(self, data: bytes) -> None:
        sent = 0
        if not self._queue:
            try:
                sent = _write(self._descriptor, data)
            except OSError:
                # The buffer is full, or the connection broken: the queued write finds out later which it is.
                sent = 0
            if sent == len(data):
                return
            self._offset = sent
        self._queue.append(data)
        self.queued += len(data) - sent
        self._queue_grew()

    def _send_all(self, pieces: list[bytes]) -> None:
        """``pieces`` are not empty."""
        if len(pieces) == 1:
            self._send(pieces[0])
            return
        size = 0
        for piece in pieces:
            size += len(piece)
        if size <= JOINED:
            self._send(b"".join(pieces))
            return
        was_empty = not self._queue
        self._queue.extend(pieces)
        self.queued += size
        if was_empty:
            self._send_queue()
        if self._queue:
            self._queue_grew()

    def _send_queue(self) -> bool:
        """Send from the queue what the kernel takes. Returns whether the connection is alive."""
        queue = self._queue
        pieces: list[Any] = []
        for piece in queue:
            pieces.append(piece)
            if len(pieces) == MOST_PIECES:
                break
        if self._offset:
            pieces[0] = memoryview(pieces[0])[self._offset :]
        try:
            sent: int = os.writev(self._descriptor, pieces)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.queued -= sent
        sent += self._offset
        while queue and sent >= len(queue[0]):
            sent -= len(queue.popleft())
        self._offset = sent
        return True

    def _queue_grew(self) -> None:
        self._start_writing()
        producer = self.producer
        if producer is not None and self._streaming and self.queued > HIGH_WATER:
            self._producer_paused = True
            producer.pauseProducing()

    def _sent_all(self) -> None:
        """The queue is empty."""
        producer = self.producer
        if producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            producer.resumeProducing()
        else:
            self.end_if_sent()

    def _start_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self.reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.reactor.removeWriter(self)
