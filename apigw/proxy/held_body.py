# Compiled: see docs/decisions/compiled.md
"""Buffers a request's body before a connection to the service is taken, so that slow clients do not occupy one.

A small body of known length is buffered whole; of any other, the first piece. See ``buffer_body`` in docs/reference.
"""

from __future__ import annotations

from apigw.contract.exchange import Waiting
from apigw.shared.tally import Tally


class Buffers:
    """The size of all buffered bodies together, in bytes. Beyond ``most``, bodies stream.

    ``tally`` counts those of all processes, where others serve too.
    """

    def __init__(self, most: int, tally: Tally | None = None) -> None:
        self.most = most
        self._tally = Tally() if tally is None else tally

    @property
    def used(self) -> int:
        """Of this process."""
        return self._tally.own

    def add(self, size: int) -> bool:
        """Returns whether it is too much: what waits is to go on."""
        return self._tally.add(size) > self.most

    def release(self, size: int) -> None:
        if size:
            self._tally.subtract(size)


class HeldBody(Waiting):
    """The buffered pieces of one body. ``release`` subtracts their size from ``Buffers``."""

    def __init__(self, buffers: Buffers, wanted: int) -> None:
        """``wanted``: number of bytes to wait for, unless the body ends before or the buffers are full."""
        self._buffers = buffers
        self._wanted = wanted
        self._only = b""
        """The first piece, which is not copied while it is the only one."""
        self._pieces = bytearray()
        self._size = 0
        self.waiting = True
        """Whether the exchange waits for more of the body."""

    def add(self, data: bytes) -> bool:
        """Add a piece. Returns whether the wait is over."""
        if not self._size:
            self._only = data
        else:
            self._pieces += self._only
            self._pieces += data
            self._only = b""
        self._size += len(data)
        return self._buffers.add(len(data)) or self._size >= self._wanted

    def __len__(self) -> int:
        return self._size

    def read(self) -> bytes:
        return self._only or bytes(self._pieces)

    def cancel(self) -> None:
        """Stop waiting for more of the body."""
        self.waiting = False

    def release(self) -> None:
        self._buffers.release(self._size)
        self._only = b""
        self._pieces = bytearray()
        self._size = 0
