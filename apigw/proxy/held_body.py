# Compiled: see docs/decisions/compiled.md
"""A request's body, kept until it is worth a connection to the service: so no slow client holds one.

A small body of known length is kept whole; of any other, the first piece. See ``buffer_body`` in docs/reference.
"""

from __future__ import annotations

from apigw.contract.exchange import Waiting


class Buffers:
    """What all kept bodies take together, in bytes. Beyond ``most``, bodies stream."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0


class HeldBody(Waiting):
    """The pieces that came before there was a connection. ``release`` gives back what they take."""

    def __init__(self, buffers: Buffers, wanted: int) -> None:
        """``wanted``: so many bytes are waited for, unless the body ends before or there is no room."""
        self._buffers = buffers
        self._wanted = wanted
        self._pieces = bytearray()
        self.waiting = True
        """Whether the exchange waits for more of the body."""

    def add(self, data: bytes) -> bool:
        """Keep a piece. Returns whether this is enough."""
        self._pieces += data
        buffers = self._buffers
        buffers.used += len(data)
        return len(self._pieces) >= self._wanted or buffers.used > buffers.most

    def read(self) -> bytes:
        return bytes(self._pieces)

    def cancel(self) -> None:
        """Nobody waits for more of it."""
        self.waiting = False

    def release(self) -> None:
        self._buffers.used -= len(self._pieces)
        self._pieces = bytearray()
