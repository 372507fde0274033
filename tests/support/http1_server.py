"""An HTTP/1.1 server in memory, a client that writes its own bytes, and an application that echoes what it understood."""  # noqa: E501

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from support.fake_transport import FakeTransport

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
PEER = IPv4Address("TCP", "192.0.2.1", 40000)


class Echo:
    """Reads the whole body, then answers with what it understood. A request that fails is answered as it says."""

    body = b""
    complete = False
    error: Refused | ClientLost | None = None

    def __init__(self, request: Request) -> None:
        self.request = request

    def begin(self) -> None:
        self.request.listener = self
        self.request.read_body()

    def body_received(self, data: bytes) -> None:
        self.body += data

    def body_finished(self) -> None:
        self.complete = True
        request = self.request
        text = b"%b %b %b" % (request.method, request.uri, self.body)
        request.respond(200, [(b"content-length", b"%d" % len(text))], text)

    def client_failed(self, error: Refused | ClientLost) -> None:
        assert self.error is None, "the application is told twice"
        self.error = error
        if isinstance(error, Refused):
            if self.request.started:
                self.request.abort()
            else:
                self.request.respond(error.status, [(b"content-length", b"0")], b"")


class Hold(Echo):
    """Reads the body, and answers only when the test does."""

    def body_finished(self) -> None:
        self.complete = True


class Ignore(Echo):
    """Does not read the body, and does nothing until the test does."""

    def begin(self) -> None:
        self.request.listener = self


@frozen
class Outcome:
    """All that a client can see, and all that the application did."""

    answers: bytes
    requests: tuple[tuple[bytes, bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes | None], ...]
    """Of each: method, target, authority, fields, and the body where it was complete."""
    end: str
    """``open``, ``half-closed``, ``closed`` or ``aborted``."""

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) [A-Z][A-Za-z ]*\r\n", self.answers)]

    @property
    def bodies(self) -> list[bytes | None]:
        return [request[4] for request in self.requests]


@define
class Server:
    """A ``ChannelFactory``, its clock, and what its application has seen."""

    settings: Settings = field(factory=Settings)
    application: Callable[[Request], Echo] = Echo
    clock: Clock = field(factory=Clock)
    seen: list[Echo] = field(factory=list)
    refusals: list[Refused] = field(factory=list)
    factory: ChannelFactory = field(init=False)
    deadlines: Deadlines = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.factory = ChannelFactory(self.settings, self.deadlines, self._requested, self._refused, lambda: 0.0)

    def connect(self) -> Client:
        protocol = self.factory.buildProtocol(PEER)
        assert protocol is not None
        return Client(self, FakeTransport(self.clock).connect(protocol))

    def wait(self, seconds: float) -> None:
        """So much time passes, and the reactor turns now and then."""
        for _ in range(max(1, round(seconds * 10))):
            self.clock.advance(min(seconds, 0.1))

    def _requested(self, request: Request) -> None:
        listener = self.application(request)
        self.seen.append(listener)
        listener.begin()

    def _refused(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Headers, bytes]:
        assert (peer, secure, protocol) == (b"192.0.2.1", False, b"HTTP/1.1")
        self.refusals.append(refusal)
        return refusal.status, [(b"content-length", b"2")], b"no"


@define
class Client:
    server: Server
    transport: FakeTransport

    def send(self, data: bytes) -> None:
        self.transport.deliver(data)
        self.server.clock.advance(0)

    def send_in(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.send(piece)

    def receive(self) -> bytes:
        """What came since the last time, but for the Date of answers that have the server's."""
        self.server.clock.advance(0)
        return self.transport.take().replace(DATE, b"")

    @property
    def end(self) -> str:
        transport = self.transport
        if transport.aborted:
            return "aborted"
        if transport.closed:
            return "closed"
        return "half-closed" if transport.half_closed else "open"

    def outcome(self) -> Outcome:
        requests = tuple(
            (
                echo.request.method,
                echo.request.uri,
                echo.request.authority,
                tuple(echo.request.headers),
                echo.body if echo.complete else None,
            )
            for echo in self.server.seen
        )
        return Outcome(self.receive().replace(CONTINUE, b""), requests, self.end)


def exchange(pieces: Iterable[bytes], settings: Settings | None = None) -> Outcome:
    """What comes of sending these pieces on a new connection."""
    client = Server(settings or Settings()).connect()
    client.send_in(pieces)
    return client.outcome()


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]
