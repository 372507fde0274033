"""How long a client may take for a whole body, and for one that is sent on as it comes; with either version of HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest
from support import http1_server as one
from support import http2_client as two

from apigw.wire.channel import Settings
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.request import Request

SETTINGS = Settings(
    client_body_timeout=30.0, client_least_rate=None, client_request_timeout=100.0, stream_idle_timeout=300.0
)
NO_TOTAL = Settings(client_body_timeout=30.0, stream_idle_timeout=300.0)


class Sender(ABC):
    """A client that has sent the head of a PUT with a body of this length, or of none that is known."""

    @property
    @abstractmethod
    def request(self) -> Request: ...
    @property
    @abstractmethod
    def errors(self) -> list[Refused | ClientLost]:
        """What the application was told."""

    @abstractmethod
    def send(self, data: bytes, end: bool = False) -> None: ...
    @abstractmethod
    def wait(self, seconds: float) -> None: ...

    def is_open(self) -> bool:
        return not self.errors

    def dribble(self, size: int, every: float, until: float) -> float:
        """Send pieces of ``size``, one after the other. Returns when that ended."""
        waited = 0.0
        while self.is_open() and waited < until:
            self.send(b"x" * size)
            self.wait(every)
            waited += every
        return waited


class OverHTTP1(Sender):
    def __init__(self, length: int | None, settings: Settings) -> None:
        self.server = one.Server(settings, application=one.Hold)
        self.client = self.server.connect()
        self.chunked = length is None
        framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        self.client.send(b"PUT /a HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)

    @property
    def request(self) -> Request:
        return self.server.seen[0].request

    @property
    def errors(self) -> list[Refused | ClientLost]:
        error = self.server.seen[0].error
        return [] if error is None else [error]

    def send(self, data: bytes, end: bool = False) -> None:
        self.client.send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data)
        if end and self.chunked:
            self.client.send(b"0\r\n\r\n")

    def wait(self, seconds: float) -> None:
        self.server.wait(seconds)


class OverHTTP2(Sender):
    def __init__(self, length: int | None, settings: Settings) -> None:
        self.server = two.Server(settings)
        self.client = self.server.connect()
        more = [] if length is None else [(b"content-length", b"%d" % length)]
        self.client.ask(1, two.post(*more), end=False)
        self.recorder = two.listen(self.request)

    @property
    def request(self) -> Request:
        return self.server.requests[0]

    @property
    def errors(self) -> list[Refused | ClientLost]:
        return self.recorder.errors

    def send(self, data: bytes, end: bool = False) -> None:
        self.client.put(1, data, end)

    def wait(self, seconds: float) -> None:
        self.server.pass_time(seconds)


VERSIONS = pytest.mark.parametrize("version", [OverHTTP1, OverHTTP2])


def streaming(version: type[OverHTTP1 | OverHTTP2], settings: Settings) -> Sender:
    """A body of unknown length, of which the service has got the first piece."""
    sender = version(None, settings)
    sender.send(b"first")
    sender.request.pause_body()
    sender.request.is_stream = True
    sender.request.resume_body()
    return sender


def is_late(sender: Sender) -> bool:
    """The application can answer 408."""
    return [error.status for error in sender.errors if isinstance(error, Refused)] == [408]


@VERSIONS
@pytest.mark.parametrize("length", [10_000, None])
def test_a_whole_body_has_its_time(version: type[OverHTTP1 | OverHTTP2], length: int | None) -> None:
    """However steadily it comes; what is complete in time may be answered later."""
    sender = version(length, SETTINGS)
    assert sender.dribble(10, 5, 200) == pytest.approx(100, abs=6)
    assert is_late(sender)
    sender = version(length, SETTINGS)
    assert sender.dribble(900, 10, 90) == 90
    sender.send(b"x" * (0 if length is None else length - 9 * 900), end=True)
    sender.wait(1000)
    assert sender.request.body_complete
    assert sender.is_open()


@VERSIONS
def test_while_the_gateway_does_not_read_it_goes_on(version: type[OverHTTP1 | OverHTTP2]) -> None:
    """It is a total; what ended meanwhile is in time."""
    sender = version(100_000, SETTINGS)
    sender.send(b"x")
    sender.request.pause_body()
    sender.wait(95)
    assert sender.is_open()
    sender.wait(6)
    assert is_late(sender)


def test_what_has_come_over_http2_before_it_is_read_is_in_time() -> None:
    """The stream holds the end of a body that the service does not take yet."""
    sender = OverHTTP2(4, SETTINGS)
    sender.send(b"xx")
    sender.request.pause_body()
    sender.send(b"xx", end=True)
    sender.wait(1000)
    sender.request.resume_body()
    assert (sender.recorder.body, sender.recorder.finished, sender.errors) == (b"xxxx", 1, [])


@VERSIONS
def test_without_a_limit_a_body_may_take_for_ever(version: type[OverHTTP1 | OverHTTP2]) -> None:
    """As long as it moves."""
    sender = version(None, NO_TOTAL)
    assert sender.dribble(10, 20, 2000) == 2000
    assert sender.is_open()


@VERSIONS
@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_may_be_silent_for_longer(version: type[OverHTTP1 | OverHTTP2], begun: bool) -> None:
    """Than a body that is being buffered; each piece moves the end."""
    sender = streaming(version, NO_TOTAL)
    if begun:
        sender.request.start(200, [])
        sender.request.flush()
    for _ in range(3):
        sender.wait(299)
        assert sender.is_open()
        sender.send(b"more")
    sender.wait(301)
    assert sender.errors
    if not begun:
        assert is_late(sender)


@VERSIONS
def test_the_answer_keeps_a_stream_open_too(version: type[OverHTTP1 | OverHTTP2]) -> None:
    """One in which only the service speaks."""
    sender = streaming(version, NO_TOTAL)
    sender.request.start(200, [])
    for _ in range(5):
        sender.request.write(b"an event")
        sender.request.flush()
        sender.wait(299)
        assert sender.is_open()
    sender.wait(2)
    assert sender.errors


@VERSIONS
def test_before_it_is_sent_on_a_body_stalls_as_any_other(version: type[OverHTTP1 | OverHTTP2]) -> None:
    """So that requests without a first piece do not hold places for an hour; and an answer keeps none open that is not
    a stream."""
    sender = version(None, NO_TOTAL)
    sender.send(b"first")
    sender.wait(31)
    assert is_late(sender)
    sender = version(1000, NO_TOTAL)
    sender.send(b"first")
    sender.request.start(200, [])
    for _ in range(4):
        sender.request.write(b"x")
        sender.request.flush()
        sender.wait(8)
    assert sender.errors


@VERSIONS
def test_a_stream_has_a_whole_time_too(version: type[OverHTTP1 | OverHTTP2]) -> None:
    """Where one is set."""
    sender = streaming(version, SETTINGS)
    assert sender.dribble(10, 5, 200) == pytest.approx(100, abs=6)
    assert is_late(sender)
