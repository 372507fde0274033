"""One connection to an upstream in memory, and a receiver that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field, frozen
from twisted.internet.task import Clock

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import UpstreamError
from apigw.wire.headers import Headers
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.interfaces import Receiver, UpstreamConnection
from support.fake_transport import FakeTransport

HEAD_OF_GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
"""What is written of a ``send``."""
TIMEOUT = 30.0


def send(
    connection: UpstreamConnection,
    receiver: Receiver,
    method: bytes = b"GET",
    *,
    upgrade: bool = False,
    length: int | None = 0,
) -> None:
    connection.send(method, b"/a", b"a", [], length, upgrade, TIMEOUT, receiver)


class Recorder:
    """A receiver. It fails the test when it is called after the end."""

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.body = b""
        self.trailers: Headers = []
        self.end: str = ""
        self.error: UpstreamError | None = None
        self.body_paused = 0
        self.flushes = 0
        self.pieces = 0
        self.count: int | None = None
        self.ended_as_slow = False

    def moved(self) -> int | None:
        return self.count

    def too_slow(self) -> None:
        self.ended_as_slow = True

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        assert not self.end
        assert not self.status, "two responses"
        self.status, self.reason, self.headers = status, reason, headers

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self.response_started(status, reason, headers)
        if body:
            self.response_received(body)
        self.response_finished()

    def response_received(self, data: bytes) -> None:
        assert not self.end
        assert self.status
        self.body += data
        self.pieces += 1

    def response_paused(self) -> None:
        assert not self.end
        self.flushes += 1

    def response_trailers(self, trailers: Headers) -> None:
        assert not self.end
        assert trailers
        self.trailers = trailers

    def response_finished(self) -> None:
        assert not self.end
        assert self.status
        self.end = "finished"

    def response_failed(self, error: UpstreamError) -> None:
        assert not self.end
        self.end = type(error).__name__
        self.error = error

    def pause_body(self) -> None:
        assert not self.end
        self.body_paused += 1

    def resume_body(self) -> None:
        assert not self.end
        self.body_paused -= 1


@frozen
class Outcome:
    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    end: str
    reusable: bool


@define
class Upstream:
    clock: Clock = field(factory=Clock)
    make: Callable[..., HTTP1Connection] = HTTP1Connection
    free: list[UpstreamConnection] = field(factory=list)
    tunnels: list[UpstreamConnection] = field(factory=list)
    gone: list[UpstreamConnection] = field(factory=list)
    deadlines: Deadlines = field(init=False)
    connection: HTTP1Connection = field(init=False)
    transport: FakeTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.connection = self.make(self.deadlines, self.free.append, self.tunnels.append, self.gone.append)
        self.transport = FakeTransport(self.clock).connect(self.connection)

    def begin(self, method: bytes = b"GET", *, upgrade: bool = False, length: int | None = 0) -> Recorder:
        """Begin an exchange. Its body is the test's business."""
        recorder = Recorder()
        send(self.connection, recorder, method, upgrade=upgrade, length=length)
        return recorder

    def ask(self, method: bytes = b"GET", *, upgrade: bool = False) -> Recorder:
        """A whole exchange without body."""
        recorder = self.begin(method, upgrade=upgrade)
        self.connection.finish()
        return recorder

    def say(self, data: bytes) -> None:
        """The upstream sends."""
        self.transport.deliver(data)
        self.clock.advance(0)

    def close(self, reason: Exception | None = None) -> None:
        self.transport.disconnect(reason)

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds * 10))):
            self.clock.advance(min(seconds, 0.1))

    @property
    def reusable(self) -> bool:
        transport = self.transport
        return self.free == [self.connection] and not (transport.lost or transport.aborted or transport.disconnecting)


def exchange(pieces: Iterable[bytes], *, method: bytes = b"GET", upgrade: bool = False, close: bool = False) -> Outcome:
    """What comes of a response in these pieces; after them the upstream may close."""
    upstream = Upstream()
    recorder = upstream.ask(method, upgrade=upgrade)
    for piece in pieces:
        upstream.say(piece)
    if close:
        upstream.close()
    headers = tuple(recorder.headers)
    return Outcome(recorder.status, recorder.reason, headers, recorder.body, recorder.end, upstream.reusable)
