"""HTTP/2 clients that ask for more than anybody needs, and those that only look so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)
from support.http2_client import (
    Client,
    Server,
    download,
    get,
    hello,
    only,
    opened,
    raw,
)

from apigw.wire.channel import Settings
from apigw.wire.http2.bounds import (
    MOST_RESETS,
    MOST_STREAMS,
    MOST_TRIFLES,
    MOST_WINDOW_UPDATES,
    RESETS_A_SECOND,
)
from apigw.wire.http2.frames import Code
from apigw.wire.request import Request


def until_goaway(client: Client, most: int, step: Callable[[int], None]) -> int:
    for count in range(1, most + 1):
        step(count)
        if client.goaway() is not None:
            assert client.goaway() == Code.ENHANCE_YOUR_CALM
            return count
    return most + 1


def resetting(client: Client) -> Callable[[int], None]:
    return lambda count: client.send(client.headers(2 * count - 1, get()), RstStreamFrame(2 * count - 1))


def test_rapid_reset() -> None:
    """CVE-2023-44487: requests that are reset at once stop reaching the services after a thousand."""
    server = Server()
    client = server.connect()
    assert until_goaway(client, 2000, resetting(client)) == MOST_RESETS + 1
    assert client.pipe.ended
    assert len(server.requests) == MOST_RESETS + 1


def test_rapid_reset_in_one_segment() -> None:
    """Thousands of them in one segment reach the services no more often."""
    server = Server()
    client = server.connect()
    pairs = [(client.headers(number, get()), RstStreamFrame(number)) for number in range(1, 4001, 2)]
    client.send(*(frame for pair in pairs for frame in pair))
    server.clock.advance(0)
    assert client.goaway() == Code.ENHANCE_YOUR_CALM
    assert len(server.requests) == MOST_RESETS + 1


def test_made_you_reset() -> None:
    """CVE-2025-8671: a client that provokes the resets instead of sending them gets no further."""
    server = Server()
    client = server.connect()

    def step(count: int) -> None:
        client.ask(2 * count - 1, get())
        client.send_bytes(
            raw(3, 0, 2 * count - 1, b"\0\0\0\x08") if count % 2 else raw(8, 0, 2 * count - 1, b"\0\0\0\0")
        )

    assert until_goaway(client, 2000, step) <= MOST_RESETS + 1


def test_what_was_accepted_is_answered_after_too_much() -> None:
    """The client is told to come no more, and reads what it has asked for; one that goes on is cut off."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    first = only(server)
    reset = resetting(client)
    count = until_goaway(client, 2000, lambda count: reset(count + 1))
    assert not client.pipe.ended
    client.ask(2 * count + 3, get())
    assert client.reset(2 * count + 3) == Code.REFUSED_STREAM
    hello(first)
    assert client.answer(1)[2] == b"hello"
    assert client.pipe.ended


def test_too_much_twice_is_the_end() -> None:
    """Whoever goes on after the warning loses what it has asked for."""
    server = Server()
    client = server.connect()
    client.ask(1, get())
    reset = resetting(client)
    until_goaway(client, 2000, lambda count: reset(count + 1))
    for count in range(2000, 3100):
        reset(count)
    assert client.pipe.ended


def test_after_a_warning_the_windows_of_what_was_answered_before_are_fine() -> None:
    """They are earned by the streams and the data of the whole connection."""
    server = Server(on_request=lambda request: None)
    client = server.connect()
    for number in range(1, 41, 2):
        client.ask(number, get())
    for request in server.requests[:10]:
        hello(request)
    until_goaway(client, 200, lambda count: client.send(PingFrame(0)))
    for _ in range(20):
        client.open_window(0, 100)
    assert not client.pipe.ended
    for request in server.requests[10:]:
        hello(request)
    assert client.answer(39)[2] == b"hello"


def test_a_proxy_may_reset_half_of_its_streams() -> None:
    """Many users on one connection cancel more often than 33 times a second together: what is answered counts too."""
    server = Server()
    client = server.connect()

    def step(count: int) -> None:
        client.ask(4 * count - 3, get())
        hello(server.requests[-1])
        client.send(client.headers(4 * count - 1, get()), RstStreamFrame(4 * count - 1))
        server.requests.clear()
        client.frames.clear()

    assert until_goaway(client, 1100, step) == 1101


def test_resets_over_time_are_fine() -> None:
    """33 a second for as long as one likes."""
    server = Server()
    client = server.connect()
    reset = resetting(client)

    def step(count: int) -> None:
        server.pass_time(1 / RESETS_A_SECOND)
        reset(count)

    assert until_goaway(client, 1200, step) == 1201


def test_resets_after_the_answer_began_are_fine() -> None:
    """Whoever has read enough of a response may say so."""

    def on_request(request: Request) -> None:
        request.start(200, [])
        request.flush()

    client = Server(on_request=on_request).connect()
    assert until_goaway(client, 1200, resetting(client)) == 1201


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


def test_a_client_may_ping_behind_each_answer() -> None:
    """As grpc-go does by default, to measure the bandwidth; an answer pays for one PING."""
    client = Server(on_request=hello).connect()

    def step(count: int) -> None:
        client.ask(2 * count - 1, get())
        client.send(PingFrame(0))

    assert until_goaway(client, 300, step) == 301
    assert until_goaway(client, 1000, lambda count: client.send(PingFrame(0))) in (100, 101)


@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, b""), PriorityFrame(1), ExtensionFrame(0x42, 1)],
    ids=repr,
)
def test_trifles_are_counted(frame: Frame) -> None:
    """A flood of frames that change nothing ends as well."""
    client = opened(Server().connect())
    assert until_goaway(client, 5000, lambda count: client.send(frame)) == MOST_TRIFLES + 2


def test_a_late_reset_for_each_answer_is_fine() -> None:
    """A proxy whose users leave as their answers end sends a reset for every stream that is closed already."""
    server = Server(on_request=hello)
    client = server.connect()

    def step(count: int) -> None:
        client.ask(2 * count - 1, get())
        client.send(RstStreamFrame(2 * count - 1))
        server.requests.clear()
        client.frames.clear()

    assert until_goaway(client, 1100, step) == 1101


def test_windows_in_return_for_data_are_fine() -> None:
    """Go's net/http opens windows up to eight times for a DATA frame, and that for as long as a download takes."""
    server = Server()
    client = server.connect()
    request, _ = download(server, client)

    def step(count: int) -> None:
        request.write(b"x" * 2000)
        request.flush()
        for _ in range(4):
            client.open_window(0, 500)
            client.open_window(1, 500)
        client.frames.clear()

    assert until_goaway(client, 1000, step) == 1001


def test_a_window_for_each_answer_without_a_body_is_fine() -> None:
    """httpx opens the connection's window with every request, also when all it is answered is 204."""
    server = Server(on_request=lambda request: request.respond(204, [], b""))
    client = server.connect()

    def step(count: int) -> None:
        client.ask(2 * count - 1, get())
        client.open_window(0, 1)
        server.requests.clear()
        client.frames.clear()

    assert until_goaway(client, 1100, step) == 1101


def test_windows_for_nothing_are_counted() -> None:
    """A flood of WINDOW_UPDATE ends at Envoy's formula."""
    client = opened(Server().connect())
    assert until_goaway(client, 100, lambda count: client.open_window(0, 1)) == MOST_WINDOW_UPDATES + 2 + 1


def test_a_dribble_is_a_flood() -> None:
    """CVE-2019-9511: a client that takes a large body byte by byte does not keep the gateway busy for long."""
    server = Server(on_request=lambda request: request.respond(200, [], b"x" * 100_000))
    client = server.connect({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, get())
    assert until_goaway(client, 100, lambda count: client.open_window(1, 1)) <= 8


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
