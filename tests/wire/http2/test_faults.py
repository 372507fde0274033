"""HTTP/2 clients that break the rules, and those that abuse them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
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

from apigw.wire.channel import Settings
from apigw.wire.errors import ClientLost
from apigw.wire.http2.frames import Code
from apigw.wire.http2.server import MOST_STREAMS
from apigw.wire.request import Request

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
    "settings of an odd length": (Code.FRAME_SIZE_ERROR, lambda c: raw(4, 0, 0, b"xxxx")),
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


def test_a_stream_number_is_used_once() -> None:
    """A request cannot come on a stream that is closed, or below one that was opened."""
    server = Server(on_request=hello)
    client = server.connect()
    client.ask(5, get())
    client.ask(3, get())
    assert client.goaway() == Code.STREAM_CLOSED
    assert len(server.requests) == 1


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


# Abuse.


def until_goaway(client: Client, most: int, step: Callable[[int], None]) -> int:
    for count in range(1, most + 1):
        step(count)
        if client.goaway() is not None:
            assert client.goaway() == Code.ENHANCE_YOUR_CALM
            assert client.pipe.ended
            return count
    return most + 1


def test_rapid_reset() -> None:
    """CVE-2023-44487: requests that are reset at once stop reaching the services after a hundred."""
    server = Server()
    client = server.connect()

    def step(count: int) -> None:
        client.send(client.headers(2 * count - 1, get()), RstStreamFrame(2 * count - 1))

    assert until_goaway(client, 1000, step) == 101
    assert len(server.requests) == 101


def test_rapid_reset_in_one_segment() -> None:
    """A thousand of them in one segment reach the services no more often."""
    server = Server()
    client = server.connect()
    pairs = [(client.headers(number, get()), RstStreamFrame(number)) for number in range(1, 2001, 2)]
    client.send(*(frame for pair in pairs for frame in pair))
    assert client.goaway() == Code.ENHANCE_YOUR_CALM
    assert len(server.requests) == 101


def test_made_you_reset() -> None:
    """CVE-2025-8671: a client that provokes the resets instead of sending them gets no further."""
    server = Server()
    client = server.connect()

    def step(count: int) -> None:
        client.ask(2 * count - 1, get())
        client.send_bytes(raw(8, 0, 2 * count - 1, b"\0\0\0\0"))

    assert until_goaway(client, 1000, step) == 101


def test_resets_over_time_are_fine() -> None:
    """A user who scrolls past pictures cancels many requests, but not a hundred in ten seconds."""
    server = Server()
    client = server.connect()

    def step(count: int) -> None:
        server.pass_time(0.2)
        client.send(client.headers(2 * count - 1, get()), RstStreamFrame(2 * count - 1))

    assert until_goaway(client, 300, step) == 301


def test_resets_after_the_answer_began_are_fine() -> None:
    """Whoever has read enough of a response may say so."""

    def on_request(request: Request) -> None:
        request.start(200, [])
        request.flush()

    server = Server(on_request=on_request)
    client = server.connect()

    def step(count: int) -> None:
        client.send(client.headers(2 * count - 1, get()), RstStreamFrame(2 * count - 1))

    assert until_goaway(client, 200, step) == 201


@pytest.mark.parametrize("frame", [PingFrame(0), PingFrame(0, flags=["ACK"]), SettingsFrame(0)], ids=repr)
def test_questions_are_counted(frame: Frame) -> None:
    """A flood of PING or SETTINGS, each of which asks for an answer, ends after a hundred; over time it does not."""
    client = Server().connect()
    assert until_goaway(client, 1000, lambda count: client.send(frame)) in (100, 101)
    server = Server()
    slow = server.connect()

    def step(count: int) -> None:
        server.pass_time(0.2)
        slow.send(frame)

    slow.ask(1, get())
    assert until_goaway(slow, 300, step) == 301


@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, b""), WindowUpdateFrame(0, window_increment=1), PriorityFrame(1), ExtensionFrame(0x42, 1)],
    ids=repr,
)
def test_trifles_are_counted(frame: Frame) -> None:
    """A flood of frames that say nothing ends as well."""
    client = opened(Server().connect())
    assert 1000 <= until_goaway(client, 5000, lambda count: client.send(frame)) <= 1001


def test_windows_in_return_for_data_are_no_trifles() -> None:
    """A client that confirms every frame of a long download, twice, is not taken for an attacker."""
    server = Server()
    client = server.connect()
    request, _ = download(server, client)

    def step(count: int) -> None:
        request.write(b"x" * 2000)
        request.flush()
        client.open_window(0, 2000)
        client.open_window(1, 2000)
        client.frames.clear()

    assert until_goaway(client, 3000, step) == 3001


def test_a_dribble_is_a_flood() -> None:
    """CVE-2019-9511: a client that takes a large body byte by byte does not keep the gateway busy for long."""
    server = Server(on_request=lambda request: request.respond(200, [], b"x" * 100_000))
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, get())
    assert until_goaway(client, 5000, lambda count: client.open_window(1, 1)) <= 1001


@pytest.mark.parametrize(("pieces", "calm"), [(8, False), (9, True), (100, True)])
def test_continuations_are_counted(pieces: int, calm: bool) -> None:
    """CVE-2024-27983: a block without an end is cut off, in however small pieces it comes."""
    server = Server(on_request=hello)
    client = server.connect()
    frames = client.continued(1, get(b"/" + b"a" * 1000), pieces)
    client.send(*frames)
    assert (client.goaway() == Code.ENHANCE_YOUR_CALM) is calm
    assert len(server.requests) == (0 if calm else 1)


def test_a_block_is_bounded_by_the_limit() -> None:
    """With a small limit, even eight full frames are more than is ever held."""
    server = Server(Settings(max_header_size=1024))
    client = server.connect()
    client.send(HeadersFrame(1, b"\0" * 16_384), ContinuationFrame(1, b"\0" * 16_384))
    assert client.goaway() == Code.ENHANCE_YOUR_CALM


def test_streams_beyond_the_limit_are_refused() -> None:
    """A client that opens too many streams can try again; those that were open are served, and so is the next."""
    server = Server()
    client = server.connect()
    for number in range(1, 2 * MOST_STREAMS + 2, 2):
        client.ask(number, get(b"/", (b"x-n", b"%d" % number)))
    assert client.reset(2 * MOST_STREAMS + 1) == Code.REFUSED_STREAM
    assert len(server.requests) == MOST_STREAMS
    hello(server.requests[0])
    client.ask(2 * MOST_STREAMS + 3, get(b"/", (b"x-n", b"last")))
    assert server.requests[-1].headers[-1] == (b"x-n", b"last")
