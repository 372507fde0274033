"""HTTP/2 clients that break the rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from support.http2_client import (
    PREFACE,
    Client,
    Pipe,
    Recorder,
    Server,
    download,
    get,
    hello,
    listen,
    only,
    opened,
    post,
    raw,
)

from apigw.wire.errors import ClientLost
from apigw.wire.http2.bounds import (
    STREAM_WINDOW,
)
from apigw.wire.http2.frames import Code

# Frames that break the connection.


FAULTS: dict[str, tuple[Code, Callable[[Client], bytes]]] = {
    "a frame that is too large": (Code.FRAME_SIZE_ERROR, lambda c: raw(0, 0, 1, b"x" * 16_385)[:100]),
    "data on no stream": (Code.PROTOCOL_ERROR, lambda c: raw(0, 0, 0, b"x")),
    "data on an idle stream": (Code.PROTOCOL_ERROR, lambda c: raw(0, 0, 5, b"x")),
    "data padded with nothing": (Code.FRAME_SIZE_ERROR, lambda c: raw(0, 8, 1, b"")),
    "data with too much padding": (Code.PROTOCOL_ERROR, lambda c: raw(0, 8, 1, b"\x05xxxx")),
    "headers on no stream": (Code.PROTOCOL_ERROR, lambda c: raw(1, 5, 0, b"\x82")),
    "headers on an even stream": (Code.PROTOCOL_ERROR, lambda c: raw(1, 5, 2, b"\x82")),
    "headers shorter than their priority": (Code.FRAME_SIZE_ERROR, lambda c: raw(1, 0x25, 3, b"\x82")),
    "headers with too much padding": (Code.PROTOCOL_ERROR, lambda c: raw(1, 0x0D, 3, b"\x09\x82")),
    "priority of no stream": (Code.PROTOCOL_ERROR, lambda c: raw(2, 0, 0, b"xxxxx")),
    "priority of another length": (Code.FRAME_SIZE_ERROR, lambda c: raw(2, 0, 1, b"xxxx")),
    "a reset of no stream": (Code.PROTOCOL_ERROR, lambda c: raw(3, 0, 0, b"xxxx")),
    "a reset of an idle stream": (Code.PROTOCOL_ERROR, lambda c: raw(3, 0, 9, b"xxxx")),
    "a reset of another length": (Code.FRAME_SIZE_ERROR, lambda c: raw(3, 0, 1, b"xxxxx")),
    "settings of a stream": (Code.PROTOCOL_ERROR, lambda c: raw(4, 0, 1, b"")),
    "settings of a wrong length": (Code.FRAME_SIZE_ERROR, lambda c: raw(4, 0, 0, b"xxxx")),
    "a settings confirmation that says more": (Code.FRAME_SIZE_ERROR, lambda c: raw(4, 1, 0, b"\0\3\0\0\0\1")),
    "push neither on nor off": (Code.PROTOCOL_ERROR, lambda c: raw(4, 0, 0, b"\0\2\0\0\0\2")),
    "an initial window too large": (Code.FLOW_CONTROL_ERROR, lambda c: raw(4, 0, 0, b"\0\4\x80\0\0\0")),
    "a frame size too small": (Code.PROTOCOL_ERROR, lambda c: raw(4, 0, 0, b"\0\5\0\0\0\1")),
    "a frame size too large": (Code.PROTOCOL_ERROR, lambda c: raw(4, 0, 0, b"\0\5\1\0\0\0")),
    "a promise": (Code.PROTOCOL_ERROR, lambda c: PushPromiseFrame(1, 2, c.encoder.encode(get())).serialize()),
    "a ping of a stream": (Code.PROTOCOL_ERROR, lambda c: raw(6, 0, 1, b"xxxxxxxx")),
    "a ping of another length": (Code.FRAME_SIZE_ERROR, lambda c: raw(6, 0, 0, b"xxxxxxx")),
    "a farewell to a stream": (Code.PROTOCOL_ERROR, lambda c: raw(7, 0, 1, b"xxxxxxxx")),
    "a farewell cut short": (Code.FRAME_SIZE_ERROR, lambda c: raw(7, 0, 0, b"xxxx")),
    "a window of another length": (Code.FRAME_SIZE_ERROR, lambda c: raw(8, 0, 1, b"xxx")),
    "a window of an idle stream": (Code.PROTOCOL_ERROR, lambda c: raw(8, 0, 9, b"\0\0\0\1")),
    "the connection's window opened by nothing": (Code.PROTOCOL_ERROR, lambda c: raw(8, 0, 0, b"\0\0\0\0")),
    "the connection's window too large": (Code.FLOW_CONTROL_ERROR, lambda c: raw(8, 0, 0, b"\x7f\xff\xff\xff")),
    "a continuation of nothing": (Code.PROTOCOL_ERROR, lambda c: raw(9, 4, 1, b"\x82")),
    "a block that is interrupted": (Code.PROTOCOL_ERROR, lambda c: raw(1, 0, 3, b"\x82") + raw(6, 0, 0, b"xxxxxxxx")),
    "a block that another stream continues": (
        Code.PROTOCOL_ERROR,
        lambda c: raw(1, 0, 3, b"\x82") + raw(9, 4, 5, b"\x82"),
    ),
    "an index beyond the table": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\xff\x80\x01")),
    "index zero": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x80")),
    "an integer without an end": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\xff" + b"\x80" * 20)),
    "a string cut short": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x40\x05abc")),
    "a field cut short": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x40")),
    "a value cut short": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x40\x01a")),
    "a string that is not Huffman code": (
        Code.COMPRESSION_ERROR,
        lambda c: raw(1, 5, 3, b"\x40\x84\xff\xff\xff\xff\0"),
    ),
    "a table that is too large": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x3f\xe2\x1f\x82")),
    "a table that changes late": (Code.COMPRESSION_ERROR, lambda c: raw(1, 5, 3, b"\x82\x20")),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_frame_that_breaks_the_connection(case: str) -> None:
    """What leaves the connection in doubt ends it, with the code that says why; the next client is served."""
    code, make = FAULTS[case]
    server = Server()
    client = opened(server.connect())
    recorder = listen(only(server))
    client.send_bytes(make(client))
    assert client.goaway() == code
    assert client.pipe.ended
    assert [type(error) for error in recorder.errors] == [ClientLost]
    server.on_request = hello
    other = server.connect()
    other.ask(1, get())
    assert other.answer(1)[2] == b"hello"
    client.send_bytes(raw(6, 0, 0, b"xxxxxxxx"))
    assert not client.receive()
    server.pass_time(6)
    assert client.pipe.disconnected


def test_data_on_a_stream_that_ended() -> None:
    """DATA or HEADERS after END_STREAM break the stream while it is answered, and the connection after that."""
    for late in (DataFrame(1, b"x"), HeadersFrame(1, Encoder().encode([(b"a", b"b")]), flags=["END_HEADERS"])):
        server = Server()
        client = server.connect()
        client.ask(1, get())
        client.send(late)
        assert client.reset(1) == Code.STREAM_CLOSED
        client.ask(3, get())
        hello(server.requests[-1])
        client.send(DataFrame(3, b"x"))
        assert client.goaway() == Code.STREAM_CLOSED


def test_a_new_setting_may_not_overflow_a_window() -> None:
    """RFC 9113 §6.9.2: an initial window that lifts an open stream's beyond what fits ends the connection."""
    client = opened(Server().connect())
    client.open_window(1, 2**31 - 1 - 65_535)
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_536}))
    assert client.goaway() == Code.FLOW_CONTROL_ERROR


def test_a_client_that_does_not_read_why() -> None:
    """A client that breaks the rules while it reads nothing is let go all the same."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    download(server, client)[0].respond(200, [], b"x" * 1_000_000)
    assert client.pipe.held_up
    client.channel.dataReceived(raw(6, 0, 1, b"xxxxxxxx"))
    assert client.pipe.half_closed
    server.pass_time(6)
    assert client.pipe.disconnected


@pytest.mark.parametrize(("number", "code"), [(3, Code.PROTOCOL_ERROR), (1, Code.STREAM_CLOSED)])
def test_a_stream_number_is_used_once(number: int, code: Code) -> None:
    """RFC 9113 §5.1, §5.1.1: a request cannot come below one that was opened, or on a stream that is closed."""
    server = Server(on_request=hello)
    client = server.connect()
    client.ask(1, get())
    client.ask(5, get())
    client.ask(number, get())
    assert client.goaway() == code
    assert len(server.requests) == 2


STREAM_FAULTS: dict[str, tuple[Code, Callable[[Client], bytes]]] = {
    "a window opened by nothing": (Code.PROTOCOL_ERROR, lambda c: raw(8, 0, 1, b"\0\0\0\0")),
    "a window that overflows": (Code.FLOW_CONTROL_ERROR, lambda c: raw(8, 0, 1, b"\x7f\xff\xff\xff")),
    "more data than the window holds": (
        Code.FLOW_CONTROL_ERROR,
        lambda c: raw(0, 0, 1, b"x" * 16_384) * (STREAM_WINDOW // 16_384 + 1),
    ),
    "trailers that do not end it": (Code.PROTOCOL_ERROR, lambda c: raw(1, 4, 1, c.encoder.encode([(b"a", b"b")]))),
    "trailers with a pseudo-header": (
        Code.PROTOCOL_ERROR,
        lambda c: raw(1, 5, 1, c.encoder.encode([(b":path", b"/")])),
    ),
    "data after its end": (Code.STREAM_CLOSED, lambda c: raw(0, 1, 1, b"") + raw(0, 0, 1, b"x")),
    "trailers after its end": (
        Code.STREAM_CLOSED,
        lambda c: raw(0, 1, 1, b"") + raw(1, 5, 1, c.encoder.encode([(b"a", b"b")])),
    ),
}


@pytest.mark.parametrize("case", STREAM_FAULTS)
def test_a_frame_that_breaks_its_stream_is_answered_by_a_reset(case: str) -> None:
    """RFC 9113 §5.4.2: with the code of the fault, and no answer, though the exchange waits for one; others go on."""
    code, make = STREAM_FAULTS[case]
    server = Server()
    client = opened(server.connect())
    recorder = listen(only(server))
    only(server).pause_body()
    client.send_bytes(make(client))
    assert client.reset(1) == code
    assert not any(isinstance(frame, HeadersFrame | DataFrame) for frame in client.frames)
    assert [type(error) for error in recorder.errors] == [ClientLost]
    assert client.is_served(1)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (WindowUpdateFrame(1, window_increment=2**31 - 1), Code.FLOW_CONTROL_ERROR),
        (raw(8, 0, 1, b"\0\0\0\0"), Code.PROTOCOL_ERROR),
    ],
    ids=repr,
)
def test_a_window_that_breaks_its_stream(frame: Frame | bytes, code: Code) -> None:
    """A window that overflows, or is opened by nothing, costs the client that stream."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    client.send_bytes(frame if isinstance(frame, bytes) else frame.serialize())
    assert client.reset(1) == code
    assert client.is_served(1)


def test_frames_that_are_ignored() -> None:
    """Extensions, priorities, padding, and late news of closed streams disturb nobody."""
    server = Server(on_request=hello)
    client = server.connect()
    client.send_bytes(raw(0x42, 0xFF, 1, b"whatever"))
    client.send(PriorityFrame(7, depends_on=3, stream_weight=4))
    block = client.encoder.encode(get())
    flags = ["END_HEADERS", "END_STREAM", "PADDED", "PRIORITY"]
    client.send(HeadersFrame(1, block, pad_length=9, flags=flags))
    assert client.answer(1)[2] == b"hello"
    client.send(WindowUpdateFrame(1, window_increment=5), RstStreamFrame(1), PriorityFrame(1))
    client.send(SettingsFrame(0, settings={0x99: 7}), SettingsFrame(0, flags=["ACK"]))
    assert client.is_served(1)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"X", PREFACE + b"\0\0\x08\6\0\0\0\0\0xxxxxxxx"]
)
def test_a_beginning_that_is_not_http2(first: bytes) -> None:
    """A client that negotiated HTTP/2 and speaks something else is told so and cut off."""
    server = Server()
    client = server.connect()
    channel = type(client.channel)(server.factory, b"192.0.2.1", True)
    pipe = Pipe()
    channel.makeConnection(pipe)
    channel.dataReceived(first)
    assert GoAwayFrame(0, error_code=1).serialize() in pipe.value()
    assert pipe.ended


def test_bytes_may_come_one_by_one() -> None:
    """However the network cuts the stream of bytes, the exchange is the same."""
    server = Server()
    client = server.connect()
    client.send_bytes(b"")
    data = client.headers(1, post(), end=False).serialize() + DataFrame(1, b"body", flags=["END_STREAM"]).serialize()
    recorder = Recorder()
    for at in range(len(data)):
        client.send_bytes(data[at : at + 1])
        if server.requests and not only(server).body_wanted:
            only(server).listener = recorder
            only(server).read_body()
    assert (recorder.body, recorder.finished) == (b"body", 1)
