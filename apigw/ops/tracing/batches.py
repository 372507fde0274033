# Compiled: see docs/decisions/compiled.md
"""Spans that wait to be sent, as requests of OpenTelemetry's protocol, up to a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, final

from apigw import __version__
from apigw.ops.tracing.protobuf import key_of, length_delimited, text, varint

MOST_BATCH: Final = 512 * 1024
"""Bytes of a batch after which it is complete. To send it takes as long as to encode a few hundred spans, and many a
proxy refuses more than 1 MiB."""
MOST_WAITING: Final = 4 * 1024 * 1024
"""Bytes of all that waits. Then the oldest are dropped."""
TOGETHER: Final = 32
"""Spans that are joined at a time, so that the memory of those before can be used again while it is in the cache."""

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
    """``body`` is the request for ``spans`` spans."""

    def __init__(self, body: bytes, spans: int) -> None:
        self.body = body
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
        self._pieces: list[bytes] = []
        self._spans = 0
        self._size = 0
        """Of the next batch: its latest spans, each after its tag and length; what was joined of those before; the
        number of these, and their bytes."""
        self._complete: deque[Batch] = deque()

    def add(self, span: bytes) -> None:
        latest = self._latest
        latest.append(b"\x12%b%b" % (varint(len(span)), span))
        if len(latest) >= TOGETHER:
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
        body = b"".join((b"\x0a", varint(size), self.resource, of_scope, SCOPE, *self._pieces))
        batch = Batch(body, self._spans)
        self._pieces, self._spans, self._size = [], 0, 0
        self.put(batch, True)

    def _join(self) -> None:
        latest = self._latest
        piece = b"".join(latest)
        self._pieces.append(piece)
        self._spans += len(latest)
        self._size += len(piece)
        latest.clear()

    def put(self, batch: Batch, last: bool) -> None:
        """Add a batch, as the ``last``, or as the first again."""
        self.waiting += len(batch.body)
        if last:
            self._complete.append(batch)
        else:
            self._complete.appendleft(batch)
        while self.waiting > MOST_WAITING:
            self._dropped(self.take().spans)

    def take(self) -> Batch:
        """The oldest. There must be one."""
        batch = self._complete.popleft()
        self.waiting -= len(batch.body)
        return batch

    @property
    def ready(self) -> bool:
        return len(self._complete) > 0

    @property
    def empty(self) -> bool:
        return not self._complete and not self._latest and self._spans == 0
