"""The oracle must be right before it can be asked: what its reader finds in requests, honest and not."""

from __future__ import annotations

import socket
import struct
from contextlib import closing

import pytest

from support.oracle import Cursor, Malformed, Recorder, check_canonical, read_all, read_message

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CANONICAL = (
    b"PUT /a?b HTTP/1.1\r\nhost: a\r\naccept: */*\r\ntransfer-encoding: chunked\r\nx-forwarded-for: 127.0.0.1\r\n"
    b"x-forwarded-proto: http\r\nx-forwarded-host: a\r\nvia: 1.1 apigw\r\nx-request-id: 1\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("data", "bodies", "begun"),
    [
        (b"", [], False),
        (GET, [b""], False),
        (b"\r\n" + GET * 2, [b"", b""], False),
        (GET[:-1], [], False),
        (b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" + GET, [b"hi", b""], False),
        (b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi", [], True),
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + GET, [b"hi", b""], False),
        (CHUNKED + b'2;a="b\\"";c\r\nhi\r\n0\r\nX: y\r\n\r\n', [b"hi"], False),
        (CHUNKED + b"2\r\nhi\r\n0\r\n", [], True),
        (CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n" + GET, [], True),
        (b"GET http://a/b HTTP/1.0\r\nHost: A\r\n\r\n", [b""], False),
    ],
)
def test_what_a_strict_reader_finds(data: bytes, bodies: list[bytes], begun: bool) -> None:
    """As many requests as there are, and no more."""
    complete, beginning = read_all(data)
    assert [message.body for message in complete] == bodies
    assert (beginning is not None) is begun


@pytest.mark.parametrize(
    "head",
    [
        b"GET  /a HTTP/1.1\r\nHost: a",
        b"GET /a HTTP/2.0\r\nHost: a",
        b"GET /a HTTP/1.1\nHost: a",
        b"GET /a\r\nHost: a",
        b"GET /a HTTP/1.1",
        b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a",
        b"GET /a HTTP/1.1\r\nHost: a b",
        b"GET a HTTP/1.1\r\nHost: a",
        *(b"GET /a#b HTTP/1.1\r\nHost: a", b"GET http://b/ HTTP/1.1\r\nHost: a", b"* * HTTP/1.1\r\nHost: a"),
        b"GET /a HTTP/1.1\r\nHost: a\r\nA : b",
        b"GET /a HTTP/1.1\r\nHost: a\r\n A: b",
        b"GET /a HTTP/1.1\r\nHost: a\r\nA: \0",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0",
        b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
        b"GET /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
        b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
    ],
)
def test_what_is_no_request(head: bytes) -> None:
    """A strict reader finds nothing in it."""
    assert read_all(head + b"\r\n\r\n" + GET) == ([], None)


def test_canonical() -> None:
    """There is one way to write a request to a service."""
    check_canonical(read_message(Cursor(CANONICAL)), CANONICAL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"host: a", b"Host: a"),
        (b"host: a", b"host:a"),
        (b"host: a", b"host:  a"),
        (b"*/*", b"*/* "),
        (b"/a?b", b"//a"),
        (b"accept: */*", b"connection: close"),
        (b"accept", b"x-user-id"),
        (b"accept", b"x_user.id"),
        (b"accept", b"te"),
        (b"accept", b"x-forwarded-for"),
        (b"accept", b"x_forwarded_for"),
        (b"accept", b"forwarded"),
        (b"accept", b"upgrade"),
        (b"127.0.0.1", b"10.0.0.1"),
        (b"via: 1.1 apigw", b"via: 1.1 other"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"\r\n2\r\n", b"\r\n02\r\n"),
        (b"x-forwarded-host: a\r\n", b""),
        (b"2\r\n", b"2;a\r\n"),
        (b"0\r\n\r\n", b"0\r\na: b\r\n\r\n"),
        (b"/a?b", b"/%2f"),
        (b"accept", b"expect"),
    ],
)
def test_what_is_not_canonical(old: bytes, new: bytes) -> None:
    """Any other way is noticed."""
    raw = CANONICAL.replace(old, new)
    assert raw != CANONICAL
    with pytest.raises((Malformed, IndexError)):
        check_canonical(read_message(Cursor(raw)), raw)


def test_a_request_whose_answer_cannot_be_delivered() -> None:
    """It is complete all the same, and not begun as well; so is what was sent behind it."""
    with closing(Recorder()) as recorder:
        with socket.create_connection(("127.0.0.1", recorder.port)) as gateway:
            gateway.sendall(CANONICAL)
            gateway.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        seen = recorder.take()
    assert [message.target for message in seen.complete] == [b"/a?b"]
    assert (seen.begun, seen.faults) == ([], [])
