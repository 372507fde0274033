"""Bodies over HTTP/2: flow control both ways, and the ends of streams."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from support.http2_client import Fields, Producer, Recorder, Server, download, get, hello, listen, only, post, pour

from apigw.wire.channel import Settings
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.http2.bounds import CONNECTION_WINDOW, MOST_STREAMS, STREAM_WINDOW
from apigw.wire.http2.flow import GIVE_BACK
from apigw.wire.http2.frames import Code

# Bodies that clients send.


def test_a_body_streams_to_the_listener() -> None:
    """An upload goes on to the service while it arrives."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    assert only(server).content_length is None
    client.put(1, b"one")
    assert recorder.body == b"one"
    client.put(1, b"two", end=True)
    assert (recorder.body, recorder.finished) == (b"onetwo", 1)


def test_a_body_waits_for_its_listener() -> None:
    """What arrives while the caller is still being authenticated is not lost, and is not out of order."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    client.put(1, b"one")
    client.put(1, b"two", end=True)
    recorder = listen(only(server))
    assert (recorder.body, recorder.finished) == (b"onetwo", 1)
    assert only(server).body_complete


def test_a_paused_body_stays_paused() -> None:
    """A service that cannot take more is not given more; when it can, nothing is missing."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    client.put(1, b"one")
    only(server).pause_body()
    client.put(1, b"two")
    client.put(1, b"three", end=True)
    assert (recorder.body, recorder.finished) == (b"one", 0)
    only(server).resume_body()
    assert (recorder.body, recorder.finished) == (b"onetwothree", 1)


def test_an_empty_end_while_paused_is_told_later() -> None:
    """A body whose end arrives during a pause still ends."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    only(server).pause_body()
    client.put(1, b"", end=True)
    assert recorder.finished == 0
    only(server).resume_body()
    assert recorder.finished == 1


def test_the_end_waits_for_who_pauses_at_the_last_piece() -> None:
    """It is told when the listener goes on."""

    class Pausing(Recorder):
        def body_received(self, data: bytes) -> None:
            super().body_received(data)
            only(server).pause_body()

    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    request = only(server)
    recorder = request.listener = Pausing()
    request.read_body()
    client.put(1, b"all", end=True)
    assert (recorder.body, recorder.finished) == (b"all", 0)
    request.resume_body()
    assert (recorder.body, recorder.finished) == (b"all", 1)


def test_windows_are_given_back_as_the_listener_takes() -> None:
    """A long upload never runs out of window while the service reads, and always does while it does not."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    for _ in range(64):
        client.put(1, b"x" * 16_384)
        assert client.window(1) + STREAM_WINDOW - len(recorder.body) > STREAM_WINDOW // 2
    only(server).pause_body()
    given = client.window(1)
    for _ in range((given + STREAM_WINDOW - len(recorder.body)) // 16_384):
        client.put(1, b"x" * 16_384)
    assert client.window(1) == given
    only(server).resume_body()
    assert client.window(1) > given
    assert client.reset(1) is None


def test_a_paused_stream_does_not_starve_the_others() -> None:
    """With as many stalled uploads as a connection may have, less one, the last upload runs at full speed."""
    server = Server()
    client = server.connect()
    for number in range(1, 2 * MOST_STREAMS - 2, 2):
        client.ask(number, post(), end=False)
        for _ in range(STREAM_WINDOW // 16_384):
            client.put(number, b"x" * 16_384)
    last = 2 * MOST_STREAMS - 1
    client.ask(last, post(), end=False)
    recorder = listen(server.requests[-1])
    for _ in range(128):
        client.put(last, b"x" * 16_384)
    assert len(recorder.body) == 128 * 16_384
    assert client.goaway() is None


def test_padding_is_given_back_at_once() -> None:
    """A client that pads its DATA does not lose window to the padding."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    for _ in range(1000):
        client.send(DataFrame(1, b"x", pad_length=255, flags=["PADDED"]))
    assert recorder.body == b"x" * 1000
    assert client.window(1) > 1000 * 257 - STREAM_WINDOW // 2


def test_too_much_data_breaks_the_stream() -> None:
    """A client that ignores its window is cut off before it fills the memory."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    for _ in range(STREAM_WINDOW // 16_384 + 1):
        client.put(1, b"x" * 16_384)
    assert client.reset(1) == Code.FLOW_CONTROL_ERROR
    assert client.goaway() is None


@pytest.mark.parametrize("taken", [0, GIVE_BACK - 1])
def test_what_no_service_reads_is_bounded_by_the_windows(taken: int) -> None:
    """All uploads of one connection hold no more than docs/explanation/overload.md says, however much comes."""
    server = Server()
    client = server.connect()
    for number in range(1, 2 * MOST_STREAMS, 2):
        client.ask(number, post(), end=False)
        listen(server.requests[-1])
        for size in (taken // 2, taken - taken // 2):
            client.put(number, b"x" * size)
        server.requests[-1].pause_body()
    streams = list(client.channel.streams.values())
    most = 0
    for _ in range(STREAM_WINDOW // 16_000 + 1):
        for number in range(1, 2 * MOST_STREAMS, 2):
            client.put(number, b"x" * 16_000)
        most = max(most, sum(len(stream._held or b"") for stream in streams))
    assert 0.8 * 12.5 * 2**20 - MOST_STREAMS * taken < most <= 12.5 * 2**20
    assert not client.channel.streams
    assert not any(stream._held for stream in streams)


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(b"5", [b"four"]), (b"5", [b"sixsix"]), (b"5", [b"four", b"xx"]), (b"0", [b"a"]), (b"1", [b""])],
    ids=repr,
)
def test_a_body_of_another_length_is_refused(length: bytes, pieces: list[bytes]) -> None:
    """A body that does not match its Content-Length never looks whole to the service, and the client learns why."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"content-length", length)), end=False)
    request = only(server)

    class Answering(Recorder):
        def client_failed(self, error: Refused | ClientLost) -> None:
            super().client_failed(error)
            request.respond(400, [], b"no")

    recorder = request.listener = Answering()
    if length != b"0":
        request.read_body()
    for number, piece in enumerate(pieces):
        client.put(1, piece, end=number == len(pieces) - 1)
    assert client.answer(1)[0] == 400
    assert [type(error) for error in recorder.errors] == [Refused]
    assert recorder.finished == 0
    assert client.goaway() is None


def test_a_body_of_another_length_is_reset_once_the_answer_began() -> None:
    """After the status is sent there is only the reset, and the exchange ends."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"content-length", b"5")), end=False)
    recorder = listen(only(server))
    only(server).start(200, [])
    only(server).flush()
    client.put(1, b"four", end=True)
    assert client.reset(1) == Code.PROTOCOL_ERROR
    assert [type(error) for error in recorder.errors] == [ClientLost]
    assert recorder.finished == 0


def test_a_body_of_another_length_ends_an_exchange_nobody_listens_to() -> None:
    """A request that is still being authenticated is given up when its body turns out malformed."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"content-length", b"5")), end=False)
    gone: list[Any] = []
    only(server).on_end = gone.append
    client.put(1, b"four", end=True)
    assert client.reset(1) == Code.PROTOCOL_ERROR
    assert [type(error) for error in gone] == [ClientLost]


def test_trailers_end_the_body() -> None:
    """They are told apart from the headers."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    client.put(1, b"body")
    client.ask(1, [(b"x-user-id", b"root")])
    assert (recorder.body, recorder.finished) == (b"body", 1)
    assert not any(name == b"x-user-id" for name, _ in only(server).headers)
    assert only(server).trailers == [(b"x-user-id", b"root")]


@pytest.mark.parametrize("fields", [[(b"a", b"b" * 300)], [(b"%d" % number, b"") for number in range(12)]])
def test_trailers_have_the_bounds_of_headers(fields: Fields) -> None:
    """In bytes and in number."""
    server = Server(Settings(max_header_size=300, max_header_count=10))
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    client.ask(1, fields)
    assert [error.status for error in recorder.errors if isinstance(error, Refused)] == [431]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ([(b"a", b"b")], False),
        ([(b":path", b"/b")], True),
        ([(b"A", b"b")], True),
        ([(b"a", b"b\r\n")], True),
        ([(b"connection", b"close")], True),
    ],
    ids=repr,
)
def test_malformed_trailers_break_the_stream(fields: Fields, end: bool) -> None:
    """A second head that is not a trailer is a stream error, and the body does not look complete."""
    server = Server()
    client = server.connect()
    client.ask(1, post(), end=False)
    recorder = listen(only(server))
    client.ask(1, fields, end)
    assert client.reset(1) == Code.PROTOCOL_ERROR
    assert recorder.finished == 0
    assert client.goaway() is None


def test_continue_is_sent_when_the_body_is_wanted() -> None:
    """curl waits for 100 before a large upload, and must not get it before the caller is let in."""
    server = Server()
    client = server.connect()
    client.ask(1, post((b"expect", b"100-continue")), end=False)
    assert not [frame for frame in client.receive() if frame.stream_id == 1]
    listen(only(server))
    (interim,) = [frame for frame in client.receive() if isinstance(frame, HeadersFrame)]
    assert "END_STREAM" not in interim.flags
    client.put(1, b"body", end=True)
    hello(only(server))
    assert client.decoder.decode(interim.data, raw=True) == [(b":status", b"100")]
    client.frames.remove(interim)
    assert client.answer(1)[0] == 200


@pytest.mark.parametrize("late", [False, True])
def test_a_refused_upload_keeps_the_connection(late: bool) -> None:
    """A 401 to an upload ends that stream; what was already under way is swallowed, and the next request is served."""
    server = Server(
        on_request=lambda request: request.respond(401, [], b"no") if request.method == b"POST" else hello(request)
    )
    client = server.connect()
    client.ask(1, post((b"content-length", b"9000000")), end=False)
    assert client.answer(1)[::2] == (401, b"no")
    assert client.reset(1) == Code.NO_ERROR
    for _ in range(8):
        client.put(1, b"x" * 16_384)
    if late:
        client.ask(1, [(b"a", b"b")])
    else:
        client.put(1, b"", end=True)
    client.ask(3, get())
    assert client.answer(3)[2] == b"hello"
    assert client.goaway() is None


def test_a_malformed_upload_keeps_the_connection() -> None:
    """A 400 to an upload ends that stream too, and its body goes nowhere, even while the answer waits for a window."""
    server = Server(on_request=hello)
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, get(b"//", method=b"POST"), end=False)
    client.put(1, b"x" * 16_384)
    assert client.reset(1) is None
    client.open_window(1, 1000)
    assert client.answer(1)[0] == 400
    assert client.reset(1) == Code.NO_ERROR
    client.ask(3, post(), end=False)
    client.put(3, b"x", end=True)
    client.open_window(3, 1000)
    assert client.answer(3)[2] == b"hello"
    assert client.goaway() is None


def test_an_answer_that_waits_outlives_the_upload() -> None:
    """The answer to an upload may wait for the client's window until the upload is over; both then end in peace."""
    server = Server(on_request=hello)
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, post(), end=False)
    client.put(1, b"x", end=True)
    client.open_window(1, 1000)
    assert client.answer(1)[2] == b"hello"
    assert client.reset(1) is None
    assert not client.channel.streams


def test_swallowed_data_is_given_back_to_the_connection() -> None:
    """A hundred refused uploads do not use up the connection's window."""
    server = Server(on_request=lambda request: request.respond(401, [], b""))
    client = server.connect()
    for number in range(1, 101, 2):
        client.ask(number, post(), end=False)
        for _ in range(8):
            client.put(number, b"x" * 16_384)
    assert client.goaway() is None
    assert client.window(0) + 65_535 - 50 * 8 * 16_384 >= CONNECTION_WINDOW // 2


# Bodies that clients receive.


def test_a_download_respects_the_windows() -> None:
    """A client that opens no window gets no more than its window, and little more is held for it here."""
    server = Server()
    client = server.connect()
    request, producer = download(server, client)
    written = pour(request, producer, 10_000_000, client)
    assert producer.paused
    assert len(client.body(1)) == 65_535
    assert written - 65_535 < 80_000
    client.open_window(1, 1_000_000)
    assert len(client.body(1)) == 65_535
    client.open_window(0, 30_000)
    assert len(client.body(1)) == 95_535
    client.open_window(0, 1_000_000)
    assert not producer.paused
    assert len(client.body(1)) == written
    request.finish()
    assert client.ended(1)


def test_an_end_waits_for_its_body() -> None:
    """The end of a response is not sent before the last of its bytes."""
    server = Server(on_request=lambda request: request.respond(200, [], b"x" * 70_000))
    client = server.connect()
    client.ask(1, get())
    assert len(client.body(1)) == 65_535
    assert not client.ended(1)
    client.open_window(0, 10_000)
    assert not client.ended(1)
    client.open_window(1, 10_000)
    assert client.ended(1)
    assert client.body(1) == b"x" * 70_000
    assert not client.channel.streams


def test_no_window_at_all() -> None:
    """A client may begin with a window of nothing: it gets the head, and an empty body needs no window."""
    server = Server(on_request=hello)
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, get())
    assert not client.ended(1)
    client.open_window(1, 1)
    assert client.body(1) == b"h"
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))
    assert client.body(1) == b"hello"
    server.on_request = lambda request: request.respond(200, [], b"")
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    client.ask(3, get())
    assert client.ended(3)


def test_a_window_may_shrink_below_nothing() -> None:
    """RFC 9113 §6.9.2: a smaller initial window counts against what was sent already."""
    server = Server()
    client = server.connect()
    request, producer = download(server, client)
    pour(request, producer, 60_000, client)
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10_000}))
    pour(request, producer, 20_000, client)
    client.open_window(1, 50_000)
    assert len(client.body(1)) == 60_000
    client.open_window(1, 1)
    assert len(client.body(1)) == 60_001


def test_streams_share_the_connection_fairly() -> None:
    """Two downloads that wait for the same window advance side by side."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    pairs = [download(server, client, number) for number in (1, 3)]
    for request, _ in pairs:
        request.write(b"x" * 200_000)
        request.finish()
    before = len(client.body(3))
    client.open_window(0, 131_072)
    assert len(client.body(3)) - before == 65_536


def test_a_transport_that_is_full_holds_everything_up() -> None:
    """A client that stops reading stalls its producers and its own requests, and nothing is lost when it goes on."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    client.receive()
    requests = [download(server, client, number) for number in (1, 3)]
    written = [pour(request, producer, 10_000_000) for request, producer in requests]
    assert client.pipe.held_up
    assert client.pipe.producerState == "paused"
    assert sum(written) < 200_000
    for request, producer in requests:
        assert producer.paused
        request.stream.set_producer(None)
        request.finish()
    assert len(client.pipe.value()) < 100_000
    assert (len(client.body(1)), len(client.body(3))) == tuple(written)
    while not (client.ended(1) and client.ended(3)):
        pass
    assert client.pipe.producerState == "producing"


def test_pings_cannot_pile_up() -> None:
    """A client that pings without reading is not read from, once the transport is full."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    pour(*download(server, client), 10_000_000)
    held = len(client.pipe.value())
    for _ in range(50):
        client.send(PingFrame(0))
    assert len(client.pipe.value()) == held


def test_a_producer_that_comes_late_is_told_to_wait() -> None:
    """An upstream's body that begins while the client is not reading waits from its first piece."""
    server = Server()
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 10_000_000})
    client.open_window(0, 10_000_000)
    client.ask(1, get())
    pour(*download(server, client, 3), 10_000_000)
    producer = Producer()
    server.requests[0].stream.set_producer(producer)  # type: ignore[arg-type]
    assert producer.paused
    client.receive()
    assert not producer.paused


def test_a_producer_that_is_named_again_stays_paused() -> None:
    """As after each read from a service: it goes on when there is room, and not before, and not never."""
    server = Server()
    client = server.connect()
    request, producer = download(server, client)
    request.write(b"x" * (65_535 + 80_000))
    request.flush()
    client.receive()
    assert producer.paused
    client.open_window(0, 1_000_000)
    client.open_window(1, 40_000)  # what is left pauses no producer, and is too much to resume one
    request.stream.set_producer(producer)  # type: ignore[arg-type]
    client.receive()
    assert producer.paused
    client.open_window(1, 40_000)
    assert not producer.paused


# The ends of streams.


def test_a_client_that_resets_is_lost() -> None:
    """A user who closes the page cancels the exchange."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    recorder = only(server).listener = Recorder()
    client.send(RstStreamFrame(1, error_code=8))
    assert [type(error) for error in recorder.errors] == [ClientLost]
    hello(only(server))
    assert not [frame for frame in client.receive() if frame.stream_id == 1]
    assert client.is_served(1)


def test_a_lost_connection_loses_every_stream() -> None:
    """Every exchange in flight ends when the client's connection does, and the listener forgets it."""
    server = Server()
    client = server.connect()
    for number in (1, 3):
        client.ask(number, post(), end=False)
    recorders = [listen(request) for request in server.requests]
    client.channel.connectionLost()
    assert [type(error) for recorder in recorders for error in recorder.errors] == [ClientLost] * 2
    assert not server.factory.channels
    for request in server.requests:
        request.resume_body()
        hello(request)


def test_an_abort_is_a_reset() -> None:
    """An upstream that dies in the middle of a body does not look like its end."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    only(server).start(200, [])
    only(server).write(b"half")
    only(server).flush()
    only(server).abort()
    assert client.reset(1) == Code.INTERNAL_ERROR
    assert not client.ended(1)
    assert client.is_served(1)
