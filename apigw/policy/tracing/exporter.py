"""Sends batches of spans to a collector, by OTLP over HTTP.

While the collector does not answer, they wait, up to a bound, and the oldest are lost. Requests never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import gethostname
from typing import Any
from uuid import uuid4

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from apigw import __version__
from apigw.ops.tracing.batches import Batch, Batches, resource
from apigw.policy.tracing.series import DROPPED, REFUSED, SENT
from apigw.wire.fetch import Uncompressed

DELAY = 1.0
"""Seconds after which an incomplete batch is sent."""
AT_A_TIME = 2
"""Requests to the collector."""
TIMEOUT = 10.0
"""Seconds for an answer, as with OpenTelemetry's SDKs (``OTEL_EXPORTER_OTLP_TIMEOUT``)."""
PAUSES = (1.0, 30.0)
"""Seconds between tries while the collector fails: the first pause, which doubles, and the longest."""
STOP_TIMEOUT = 2.0
"""Seconds in which what waits may still be sent when the program ends."""
MOST_ANSWER = 64 * 1024
"""Bytes of an answer."""

RETRYABLE = frozenset({429, 502, 503, 504})
"""Statuses after which the same is sent again (OTLP 1.10, "Retryable Response Codes"). Others refuse a batch."""

log = Logger()


class Unavailable(Exception):
    """The collector has to be tried again, after ``pause`` seconds if it says so."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


class Exporter:
    """``count(result, spans)`` counts spans by ``SENT``, ``DROPPED`` and ``REFUSED``."""

    def __init__(self, agent: IAgent, clock: Any, count: Callable[[str, int], object]) -> None:
        self.batches = Batches(self._pump, lambda spans: count(DROPPED, spans))
        self._agent = Uncompressed(agent)
        self._clock = clock
        self._count = count
        self._instance = str(uuid4())
        self._url: str | None = None
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._timer: IDelayedCall | None = None
        self._pausing: IDelayedCall | None = None
        self._pause = PAUSES[0]
        self._failing = False
        self._sending: set[Deferred[Any]] = set()

    def use(self, url: str, headers: Sequence[tuple[bytes, bytes]], service_name: str) -> None:
        """Send to ``url`` from now on, with these ``headers``, as the service of this name."""
        if (url, headers) != (self._url, self._headers):
            self._end_pause()
            self._failing, self._pause = False, PAUSES[0]
        self._url, self._headers = url, headers
        self.batches.resource = resource(
            {
                "service.name": service_name,
                "service.version": __version__,
                "service.instance.id": self._instance,
                "host.name": gethostname(),
            }
        )
        if self._timer is None:
            self._timer = self._clock.callLater(DELAY, self._due)

    def end(self) -> None:
        """There is no collector any more: what waits is lost."""
        self._url = None
        self._end_timer()
        self._end_pause()
        self._drop()

    def stop(self) -> Deferred[Any]:
        """Fires when what waits is sent, at the latest after ``STOP_TIMEOUT``. What is left is dropped."""
        self._end_timer()
        self._end_pause()
        if self._url is None:
            return succeed(None)
        self.batches.complete()
        self._pump()
        stopped = Deferred[Any]()
        giving_up = self._clock.callLater(STOP_TIMEOUT, self._give_up)

        def again(_: object) -> None:
            if self._sending:
                DeferredList(list(self._sending)).addCallback(again)
                return
            if giving_up.active():
                giving_up.cancel()
            self._end_pause()
            self._drop()
            stopped.callback(None)

        again(None)
        return stopped

    def _give_up(self) -> None:
        self._url = None
        for each in list(self._sending):
            each.cancel()

    def _due(self) -> None:
        self._timer = self._clock.callLater(DELAY, self._due)
        self.batches.complete()
        self._pump()

    def _pump(self) -> None:
        while self._url is not None and self._pausing is None and self.batches.ready:
            if len(self._sending) >= (1 if self._failing else AT_A_TIME):
                return
            batch = self.batches.take()
            sending: Deferred[Any] = ensureDeferred(self._post(self._url, batch)).addTimeout(TIMEOUT, self._clock)
            self._sending.add(sending)
            sending.addBoth(self._posted, batch, sending)

    def _posted(self, result: Any, batch: Batch, sending: Deferred[Any]) -> None:
        self._sending.discard(sending)
        if not isinstance(result, Failure):
            if self._failing:
                log.info("tracing: the collector takes spans again")
            self._failing, self._pause = False, PAUSES[0]
            self._count(SENT if result is None else REFUSED, batch.spans)
            if result is not None:
                log.warn("tracing: the collector has refused {spans} spans: {why}", spans=batch.spans, why=result)
        elif self._url is None:
            self._count(DROPPED, batch.spans)
        else:
            self._failed(result, batch)
        self._pump()

    def _failed(self, failure: Failure, batch: Batch) -> None:
        """Keep the batch, and wait before the next try."""
        if not self._failing:
            log.warn("tracing: spans wait, the collector cannot be reached: {why}", why=failure.getErrorMessage())
        self._failing = True
        self.batches.put(batch, last=False)
        if self._pausing is None:
            asked = failure.value.pause if isinstance(failure.value, Unavailable) else None
            self._pausing = self._clock.callLater(min(asked or self._pause, PAUSES[1]), self._pause_over)
            self._pause = min(self._pause * 2, PAUSES[1])

    def _pause_over(self) -> None:
        self._pausing = None
        self._pump()

    async def _post(self, url: str, batch: Batch) -> str | None:
        """None, or why the batch is refused. Raises if it must be sent again."""
        headers = Headers({"content-type": ["application/x-protobuf"], "user-agent": [f"apigw/{__version__}"]})
        for name, value in self._headers:
            headers.addRawHeader(name, value)
        client = HTTPClient(self._agent)
        response: Any = await client.post(
            url, data=_Body(batch), headers=headers, allow_redirects=False, unbuffered=True
        )
        body = _Read()
        response.deliverBody(body)
        await body.over
        if response.code in RETRYABLE:
            (after,) = response.headers.getRawHeaders("retry-after", [""])[:1]
            raise Unavailable(f"it answered with {response.code}", float(after) if after.isdecimal() else None)
        return None if 200 <= response.code < 300 else f"it answered with {response.code}"

    def _drop(self) -> None:
        self.batches.complete()
        while self.batches.ready:
            self._count(DROPPED, self.batches.take().spans)

    def _end_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _end_pause(self) -> None:
        pausing, self._pausing = self._pausing, None
        if pausing is not None:
            pausing.cancel()


@implementer(IBodyProducer)
class _Body:
    """A batch, in its pieces."""

    def __init__(self, batch: Batch) -> None:
        self._pieces = batch.pieces
        self.length = batch.size

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        for piece in self._pieces:
            consumer.write(piece)
        return succeed(None)

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


class _Read(Protocol):
    """Reads an answer that nobody looks at, so that its connection can be used again; a long one is given up."""

    transport: Any

    def __init__(self) -> None:
        self.over: Deferred[None] = Deferred(lambda _: self.transport.loseConnection())
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > MOST_ANSWER:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.over.called:
            return
        if reason.check(ResponseDone) or self._length > MOST_ANSWER:
            self.over.callback(None)
        else:
            self.over.errback(reason)
