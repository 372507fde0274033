"""One parser for the heads of all connections: none depends on what another client has sent."""

from __future__ import annotations

import pytest
from support.http1_server import Server

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
ODD = {
    "nothing special": GET,
    "close": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a body that does not come": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n",
    "a body that is refused": b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n",
    "a chunked body": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "malformed": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a later version": b"GET / HTTP/1.9\r\nHost: a\r\n\r\n",
    "Proxy-Connection": b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n",
    "half a head": b"GET / HTTP/1.1\r\nHost: a\r\n",
}


@pytest.mark.parametrize("sent", ODD.values(), ids=list(ODD))
def test_whatever_one_client_sends_another_is_understood(sent: bytes) -> None:
    """Its request is parsed as the first of its connection, and with its own fields."""
    server = Server()
    server.connect().send(GET)
    server.connect().send(sent)
    for path in (b"/b", b"/c"):
        other = server.connect()
        other.send(b"GET %b HTTP/1.1\r\nHost: other\r\nX-A: 1\r\n\r\n" % path)
        request = server.seen[-1].request
        assert (request.path, request.authority, request.content_length) == (path, b"other", 0)
        assert (b"x-a", b"1") in request.headers
        assert other.receive().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize(
    "wrong",
    [b"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_whatever_one_client_sends_another_is_refused(sent: bytes, wrong: bytes) -> None:
    """A head is as wrong behind that of another client as it is alone."""
    server, alone = Server(), Server().connect()
    alone.send(wrong)
    server.connect().send(GET)
    server.connect().send(sent)
    other = server.connect()
    other.send(wrong)
    status = alone.receive().split(b"\r\n")[0]
    assert other.receive().split(b"\r\n")[0] == status
    assert status.startswith(b"HTTP/1.1 400 ")
