"""Behind a load balancer that passes bytes on, and says whose they are."""

from __future__ import annotations

import socket

import pytest
from support.certificates import Authority
from support.client import Client
from support.daemon import Daemon, gateway
from support.services import Service

from .conftest import Start

LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 5120 443\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, authority: Authority) -> Daemon:
    issued = authority.issue("localhost")
    pair = {"cert_file": str(issued.certificate), "key_file": str(issued.key)}
    listen = [
        {"endpoint": "tcp:0:interface=127.0.0.1", "proxy_protocol": True},
        {"endpoint": "tcp:0:interface=127.0.0.1", "proxy_protocol": True, "tls": {"certificates": [pair]}},
    ]
    routes = [{"path": "/*", "service": "main"}]
    return in_front(gateway(services={"main": module_service.url}, routes=routes, listen=listen))


def test_the_client_is_who_the_header_says(daemon: Daemon, service: Service) -> None:
    """A service learns the client's address, and over a balancer's own check the balancer's."""
    for header, address in ((LINE, "203.0.113.7"), (LOCAL, "127.0.0.1")):
        with Client(daemon.addresses[0]) as client:
            client.send(header)
            assert client.get("/a").status == client.get("/a").status == 200
        assert service.last.get("x-forwarded-for") == address


def test_tls_begins_behind_it(daemon: Daemon, service: Service, authority: Authority) -> None:
    """The header comes in clear, and then the handshake."""
    with Client(daemon.addresses[1]) as client:
        client.send(LINE)
        client.socket = authority.client().wrap_socket(client.socket, server_hostname="localhost")
        assert client.get("/a").status == 200
    assert service.last.get("x-forwarded-for") == "203.0.113.7"
    assert service.last.get("x-forwarded-proto") == "https"


@pytest.mark.parametrize("sent", [b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", LINE[:-2] + b" \r\n", b"\x16\x03\x01\x02\0"])
def test_what_is_no_header_ends_the_connection(daemon: Daemon, service: Service, sent: bytes) -> None:
    """Who comes without the balancer gets nothing, not even an error."""
    for address in daemon.addresses:
        with socket.create_connection(address, 10) as client:
            client.sendall(sent)
            with pytest.raises(ConnectionResetError):
                assert client.recv(100)
                raise AssertionError
    assert service.requests == []
