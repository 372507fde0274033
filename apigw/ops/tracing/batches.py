# Compiled: see docs/decisions/compiled.md
"""Spans that wait to be sent, as requests of OpenTelemetry's protocol, up to a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, final

from mypy_extensions import i64

from apigw import __version__
from apigw.ops.tracing.protobuf import key_of, length_delimited, text, varint

MOST_BATCH: Final = 768 * 1024
"""Bytes of a batch after which it is complete. To send it takes as long as to encode a few hundred spans, and many a
proxy refuses more than 1 MiB."""
MOST_WAITING: Final = 3 * 1024 * 1024
"""Bytes of all that waits. Then the oldest are dropped. With what is being sent, the next batch, and what the memory
allocator keeps, a collector that is dead takes less than 8 MiB."""
PIECE: Final = 32 * 1024
"""Bytes of spans that are joined at a time, so that the memory of those before can be used again while it is in the
cache."""

SCOPE: Final = length_delimited(
    b"\x0a", length_delimited(b"\x0a", b"apigw") + length_delimited(b"\x12", __version__.encode("ascii"))
)
"""The encoded field ``scope`` of ``ScopeSpans``."""


def resource(attributes: Mapping[str, str]) -> bytes:
    """The encoded field ``resource`` of ``ResourceSpans``."""
    texts = [text(b"\x0a", key_of(name), value.encode("utf-8")) for name, value in attributes.items()]
    return length_delimited(b"\x0a", b"".join(texts))


@final
class Batch:
    """The ``pieces`` of a request for ``spans`` spans, of ``size`` bytes together. They are sent as they are: to join
    them costs more than to send them."""

    def __init__(self, pieces: list[bytes], size: int, spans: int) -> None:
        self.pieces = pieces
        self.size = size
        self.spans = spans


@final
class Batches:
    """``full`` is called when a batch is complete, ``dropped`` with the number of spans that are lost."""

    def __init__(self, full: Callable[[], object], dropped: Callable[[int], object]) -> None:
        self.resource = b""
        """The encoded field ``resource`` of ``ResourceSpans``."""
        self.waiting = 0
        """Bytes of the complete batches. The next one has some ``MOST_BATCH`` at most besides."""
        self._full = full
        self._dropped = dropped
        self._latest: list[bytes] = []
        self._latest_size: i64 = 0
        """The latest spans of the next batch, and their bytes."""
        self._pieces: list[bytes] = []
        self._size: i64 = 0
        self._spans = 0
        """What was joined of those before, its bytes, and the number of spans."""
        self._complete: deque[Batch] = deque()

    def add(self, span: bytes) -> None:
        """``span`` is encoded as an entry of the field ``spans`` of ``ScopeSpans``."""
        self._latest.append(span)
        self._latest_size += len(span)
        if self._latest_size >= PIECE:
            self._join()
            if self._size >= MOST_BATCH:
                self.complete()
                self._full()

    def complete(self) -> None:
        """Whatever there is is a batch."""
        if self._latest:
            self._join()
        if not self._spans:
            return
        of_scope = b"\x12" + varint(len(SCOPE) + self._size)
        size = len(self.resource) + len(of_scope) + len(SCOPE) + self._size
        head = b"\x0a%b%b%b%b" % (varint(size), self.resource, of_scope, SCOPE)
        batch = Batch([head, *self._pieces], len(head) + self._size, self._spans)
        self._pieces, self._spans, self._size = [], 0, 0
        self.put(batch, True)

    def _join(self) -> None:
        latest = self._latest
        self._pieces.append(b"".join(latest))
        self._spans += len(latest)
        self._size += self._latest_size
        self._latest_size = 0
        latest.clear()

    def put(self, batch: Batch, last: bool) -> None:
        """Add a batch, as the ``last``, or as the first again."""
        self.waiting += batch.size
        if last:
            self._complete.append(batch)
        else:
            self._complete.appendleft(batch)
        while self.waiting > MOST_WAITING:
            self._dropped(self.take().spans)

    def take(self) -> Batch:
        """The oldest. There must be one."""
        batch = self._complete.popleft()
        self.waiting -= batch.size
        return batch

    @property
    def ready(self) -> bool:
        return len(self._complete) > 0
