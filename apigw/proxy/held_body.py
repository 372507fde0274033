# Compiled: see docs/decisions/compiled.md
"""Buffers a request's body before a connection to the service is taken, so that slow clients do not occupy one.

A small body of known length is buffered whole; of any other, the first piece. See ``buffer_body`` in docs/reference.
"""

from __future__ import annotations

from apigw.contract.exchange import Waiting


class Buffers:
    """The size of all buffered bodies together, in bytes. Beyond ``most``, bodies stream."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0


class HeldBody(Waiting):
    """The buffered pieces of one body. ``release`` subtracts their size from ``Buffers``."""

    def __init__(self, buffers: Buffers, wanted: int) -> None:
        """``wanted``: number of bytes to wait for, unless the body ends before or the buffers are full."""
        self._buffers = buffers
        self._wanted = wanted
        self._pieces = bytearray()
        self.waiting = True
        """Whether the exchange waits for more of the body."""

    def add(self, data: bytes) -> bool:
        """Add a piece. Returns whether the wait is over."""
        self._pieces += data
        buffers = self._buffers
        buffers.used += len(data)
        return len(self._pieces) >= self._wanted or buffers.used > buffers.most

    def read(self) -> bytes:
        return bytes(self._pieces)

    def cancel(self) -> None:
        """Stop waiting for more of the body."""
        self.waiting = False

    def release(self) -> None:
        self._buffers.used -= len(self._pieces)
        self._pieces = bytearray()
