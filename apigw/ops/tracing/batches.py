# Compiled: see docs/decisions/compiled.md
"""Spans that wait to be sent, as requests of OpenTelemetry's protocol, up to a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, final

from apigw import __version__
from apigw.ops.tracing.protobuf import key_of, length_delimited, text, varint

MOST_SPANS: Final = 512
"""In a batch, as in OpenTelemetry's SDKs (``OTEL_BSP_MAX_EXPORT_BATCH_SIZE``)."""
MOST_BATCH: Final = 256 * 1024
"""Bytes of a batch after which it is complete."""
MOST_WAITING: Final = 4 * 1024 * 1024
"""Bytes of all that waits. Then the oldest are dropped."""


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
        """Bytes of the complete batches. The next one has at most ``MOST_BATCH`` besides."""
        self._full = full
        self._dropped = dropped
        self._parts: list[bytes] = []
        self._spans = 0
        self._size = 0
        """Of the next batch: its spans, each after its tag and length; their number; and the bytes."""
        self._complete: deque[Batch] = deque()

    def add(self, span: bytes) -> None:
        before = b"\x12" + varint(len(span))
        parts = self._parts
        parts.append(before)
        parts.append(span)
        self._size += len(before) + len(span)
        self._spans += 1
        if self._spans >= MOST_SPANS or self._size >= MOST_BATCH:
            self.complete()
            self._full()

    def complete(self) -> None:
        """Whatever there is is a batch."""
        if not self._spans:
            return
        # Joined once: each copy of so much memory costs more than to encode some spans.
        of_scope = b"\x12" + varint(len(SCOPE) + self._size)
        size = len(self.resource) + len(of_scope) + len(SCOPE) + self._size
        body = b"".join((b"\x0a", varint(size), self.resource, of_scope, SCOPE, *self._parts))
        batch = Batch(body, self._spans)
        self._parts, self._spans, self._size = [], 0, 0
        self.put(batch, True)

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
        return not self._complete and self._spans == 0
