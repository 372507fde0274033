"""Bodies that take their time or are large: both ways, at the pace of the slower side, and never in memory."""

from __future__ import annotations

import socket
import threading
from zlib import crc32

import pytest
from bench.machine import MIB
from bench.origin import pieces
from support.client import Client, Truncated, encode
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

SIZE = 64 * MIB
MAY_GROW = 32 * MIB
IN_SOCKETS = 40 * MIB
"""What two connections' worth of kernel buffers may hold, with room to spare."""


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service) -> Daemon:
    services = {"main": module_service.url}
    routes: list[dict[str, object]] = [{"path": f"/{name}/*", "service": name} for name in services]
    routes.append({"path": "/at-once/*", "service": "main", "buffer_body": 0})
    return in_front(gateway(services=services, routes=routes, max_body_size=None))


def checksum(size: int = SIZE) -> int:
    total = 0
    for piece in pieces(size):
        total = crc32(piece, total)
    return total


def test_events_arrive_one_by_one(daemon: Daemon, service: Service) -> None:
    """Each event is passed on when it comes."""
    seen = threading.Semaphore(0)

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            received.conversation.send(b"data: %d\n\n" % number)
            assert seen.acquire(timeout=10)  # only then comes the next
        received.conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        answer = client.send(encode("GET", "/main/events", "Accept: text/event-stream")).head()
        assert (answer.status, answer.get("content-type")) == (200, "text/event-stream")
        for number in range(5):
            assert client.chunk() == b"data: %d\n\n" % number
            seen.release()
        assert client.chunk() is None


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_a_large_download_arrives_whole(daemon: Daemon, service: Service, framing: str) -> None:
    """A large download arrives whole, and is never in memory whole."""

    def behave(received: Received) -> None:
        conversation = received.conversation
        fields = {"length": f"Content-Length: {SIZE}\r\n", "chunks": "Transfer-Encoding: chunked\r\n", "end": ""}[
            framing
        ]
        conversation.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode())
        for piece in pieces(SIZE):
            conversation.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunks" else piece)
        if framing == "chunks":
            conversation.send(b"0\r\n\r\n")
        elif framing == "end":
            conversation.close()

    service.behave = behave
    before = daemon.resident
    with daemon.connect() as client:
        answer = client.send(encode("GET", "/main/large")).head()
        if framing == "length":
            body = client.body(answer)
        else:
            parts = []
            while (chunk := client.chunk()) is not None:
                parts.append(chunk)
            body = b"".join(parts)
    assert (len(body), crc32(body)) == (SIZE, checksum())
    assert daemon.resident - before < MAY_GROW


def sum_up(received: Received) -> None:
    """Answers with the length of the body and its checksum."""
    length = total = 0
    for piece in received.pieces():
        length += len(piece)
        total = crc32(piece, total)
    received.conversation.answer(200, body=b"%d %d" % (length, total))


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_large_upload_arrives_whole(daemon: Daemon, service: Service, framing: str) -> None:
    """A large upload arrives whole, and is never in memory whole."""
    service.behave = sum_up
    before = daemon.resident
    with daemon.connect() as client:
        field = f"Content-Length: {SIZE}" if framing == "length" else "Transfer-Encoding: chunked"
        client.send(encode("PUT", "/main/large", field))
        for piece in pieces(SIZE):
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunks" else piece)
        if framing == "chunks":
            client.send(b"0\r\n\r\n")
        assert client.answer().body == b"%d %d" % (SIZE, checksum())
    assert daemon.resident - before < MAY_GROW


def send_until_blocked(to: socket.socket, size: int) -> int:
    """Send the body's first bytes until the other side has taken nothing for a while. Returns how many went."""
    to.settimeout(0.5)
    whole = b"".join(pieces(size))
    sent = 0
    try:
        while sent < size:
            sent += to.send(memoryview(whole)[sent : sent + 65536])
    except TimeoutError:
        pass
    to.settimeout(30)
    return sent


def test_a_client_that_stalls_holds_up_the_service_and_not_the_memory(daemon: Daemon, service: Service) -> None:
    """Of an answer that is not read no more is read from the service."""
    blocked, sent = threading.Event(), 0

    def behave(received: Received) -> None:
        nonlocal sent
        conversation = received.conversation
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        sent = send_until_blocked(conversation.socket, SIZE)
        blocked.set()
        conversation.send(b"".join(pieces(SIZE))[sent:])

    service.behave = behave
    before = daemon.resident
    with daemon.connect() as client:
        answer = client.send(encode("GET", "/main/large")).head()
        assert blocked.wait(30)
        assert sent < IN_SOCKETS
        assert daemon.resident - before < MAY_GROW
        assert daemon.get("/health").status == 200
        body = client.body(answer)
        assert (len(body), crc32(body)) == (SIZE, checksum())
        service.behave = lambda received: received.conversation.answer(200, body=b"next")
        assert client.get("/main/a").body == b"next"


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_service_that_stalls_holds_up_the_client_and_not_the_memory(
    daemon: Daemon, service: Service, framing: str
) -> None:
    """Of an upload that the service does not read no more is read from the client."""
    go_on = threading.Event()

    def behave(received: Received) -> None:
        assert go_on.wait(30)
        sum_up(received)

    service.behave = behave
    before = daemon.resident
    with daemon.connect() as client:
        if framing == "length":
            client.send(encode("PUT", "/main/large", f"Content-Length: {SIZE}"))
        else:
            client.send(encode("PUT", "/main/large", "Transfer-Encoding: chunked") + b"%x\r\n" % SIZE)
        sent = send_until_blocked(client.socket, SIZE)
        assert sent < IN_SOCKETS
        assert daemon.resident - before < MAY_GROW
        go_on.set()
        client.send(b"".join(pieces(SIZE))[sent:] + (b"\r\n0\r\n\r\n" if framing == "chunks" else b""))
        assert client.answer().body == b"%d %d" % (SIZE, checksum())


def test_an_upload_goes_on_while_its_answer_streams(daemon: Daemon, service: Service) -> None:
    """A service may answer while it reads; with ``buffer_body: 0`` even before the body's first piece."""

    def behave(received: Received) -> None:
        received.conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in received.pieces():
            received.conversation.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        received.conversation.send(b"0\r\n\r\n")

    service.behave = behave
    with daemon.connect() as client:
        assert client.send(encode("POST", "/at-once/echo", "Transfer-Encoding: chunked")).head().status == 200
        for number in range(50):
            client.send(b"5\r\n%05d\r\n" % number)
            assert client.chunk() == b"%05d" % number  # only then goes the next
        client.send(b"0\r\n\r\n")
        assert client.chunk() is None


def test_a_client_that_leaves_in_the_middle_of_a_download_ends_it(daemon: Daemon, service: Service) -> None:
    """When the client leaves, the download ends at the service too."""
    ended = threading.Event()

    def behave(received: Received) -> None:
        try:
            received.conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for piece in pieces(SIZE):
                received.conversation.send(piece)
        finally:
            ended.set()

    service.behave = behave
    for leave in (Client.close, Client.reset):
        ended.clear()
        client = daemon.connect()
        client.send(encode("GET", "/main/large")).head()
        leave(client)
        assert ended.wait(10)
        eventually(daemon.is_quiet)


def test_a_service_that_dies_in_the_middle_of_an_upload_is_a_502(daemon: Daemon, service: Service) -> None:
    """An upload to a service that dies is 502."""

    def behave(received: Received) -> None:
        next(received.pieces())
        received.conversation.reset()

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("PUT", "/main/a", "Content-Length: 1000000") + b"x" * 1000)
        answer = client.answer()
        assert (answer.status, answer.code) == (502, "upstream_protocol_error")
    eventually(daemon.is_quiet)


def test_a_large_answer_that_is_cut_is_cut_for_a_slow_client_too(daemon: Daemon, service: Service) -> None:
    """A client that reads slowly can tell too that an answer was cut."""

    def behave(received: Received) -> None:
        conversation = received.conversation
        conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces(MIB):
            conversation.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        conversation.close()

    service.behave = behave
    with daemon.connect() as client:
        client.send(encode("GET", "/main/large"))
        eventually(daemon.is_quiet)
        with pytest.raises(Truncated):
            client.answer()
