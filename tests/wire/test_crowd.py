"""How many connections one address may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.certificates import Authority
from support.fake_transport import FakeTransport
from support.http1_server import PEER, Client, Hold
from support.http1_server import Server as Plain
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from apigw.wire.channel import Settings, peer_of
from apigw.wire.proxy_protocol import ProxiedFactory
from apigw.wire.request import UNIX_PEER
from apigw.wire.room import Crowd
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY = IPv4Address("TCP", "198.51.100.7", 40000)


class Server(Plain):
    """Two connections of an address may be open; 198.51.100.7 is a trusted proxy."""

    def __init__(self, most: int | None = 2) -> None:
        trusts = PROXY.host.encode().__eq__
        super().__init__(Settings(max_connections_per_address=most, trusted=trusts), application=Hold)
        self.turned_away: list[str] = []
        self.factory._on_turned_away = self.turned_away.append

    def came(self, address: Any = PEER) -> Client | None:
        protocol = self.factory.buildProtocol(address)
        return None if protocol is None else Client(self, FakeTransport(self.clock).connect(protocol))


def test_so_many_of_one_address() -> None:
    """More are closed at once and counted, those of others are not, and one that ends makes room."""
    server = Server()
    first, second = server.came(), server.came()
    assert first
    assert second
    first.send(GET)  # what a connection speaks changes nothing
    assert server.came() is None
    assert server.came(IPv4Address("TCP", "192.0.2.2", 1))
    assert server.turned_away == ["address"]
    second.transport.disconnect()
    third = server.came()
    assert third
    assert server.came() is None
    for client in (first, third):
        client.transport.disconnect()
    assert [bool(server.came()) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("preface", [b"", b"G", GET, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01"])
def test_whatever_it_spoke_it_is_counted_once(preface: bytes) -> None:
    """A connection is one from its first byte to its end, in whichever state it ended."""
    server = Server(1)
    for _ in range(3):
        client = server.came()
        assert client
        if preface:
            client.send(preface)
        client.transport.disconnect()
    assert server.factory.crowd.has(PEER.host.encode()) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IPv6Address("TCP", "2001:db8:0:1::1", 1), IPv6Address("TCP", "2001:db8:0:1:ffff::2", 2)),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), PEER),
        (IPv6Address("TCP", "fe80::1%eth0", 1), IPv6Address("TCP", "fe80::2%eth1", 1)),
    ],
)
def test_addresses_of_one_client(one: Any, other: Any) -> None:
    """The /64 of a customer is one address, and so are the two ways to write an IPv4 address."""
    server = Server(1)
    assert server.came(one)
    assert server.came(other) is None
    assert server.came(IPv6Address("TCP", "2001:db8:0:2::1", 1))


@pytest.mark.parametrize(
    "address",
    [
        PROXY,
        IPv4Address("TCP", "127.0.0.1", 1),
        IPv4Address("TCP", "127.9.9.9", 1),
        IPv6Address("TCP", "::1", 1),
        IPv6Address("TCP", "::ffff:127.0.0.1", 1),
        UNIXAddress("/run/apigw.sock"),
        None,
    ],
)
def test_who_is_not_bound(address: Any) -> None:
    """A trusted proxy has the connections of many clients; this machine and unix sockets are its own."""
    server = Server(1)
    assert all(server.came(address) for _ in range(5))
    assert server.turned_away == []


def test_a_reload_binds_those_who_are_there() -> None:
    """What was opened while there was no bound counts, and nobody is closed for it."""
    server = Server(None)
    clients = [server.came() for _ in range(3)]
    assert all(clients)
    server.factory.settings = evolve(server.factory.settings, max_connections_per_address=2)
    assert server.came() is None
    for client in clients:
        assert client
        assert client.end == "open"
    for client in clients[:2]:
        assert client
        client.transport.disconnect()
    assert server.came()


def test_no_idle_connection_leaves_for_one_too_many() -> None:
    """An address that has enough takes no place from others where the gateway is full."""
    server = Server(1)
    server.factory.settings = evolve(server.factory.settings, max_connections=2)
    idle = server.came(IPv4Address("TCP", "192.0.2.9", 1))
    assert idle
    idle.send(GET)
    server.seen[-1].request.respond(200, [(b"content-length", b"0")], b"")
    assert server.came()
    assert server.came() is None
    assert idle.end == "open"


def test_over_tls_there_is_no_handshake(tmp_path: Path) -> None:
    """What is not taken is closed before it costs anything."""
    server, issued = Server(1), Authority(tmp_path).issue("localhost")
    pair = KeyPair(str(issued.certificate), str(issued.key))
    over_tls = TLSFactory(ServerContexts([pair]), server.factory)
    assert server.came()
    assert over_tls.buildProtocol(PEER) is None


def test_behind_the_proxy_protocol_clients_are_counted() -> None:
    """Not the load balancer, of whose connections each is of the client that its header names."""
    server = Server(1)
    factory = ProxiedFactory(server.factory, server.factory)

    def came(client: bytes) -> FakeTransport:
        built: Any = factory.buildProtocol(PEER)
        transport = FakeTransport(server.clock).connect(built)
        transport.deliver(b"PROXY TCP4 %b 192.0.2.1 5120 80\r\n" % client)
        return transport

    transports = [came(b"203.0.113.1"), came(b"203.0.113.2"), came(b"203.0.113.1")]
    assert [transport.aborted for transport in transports] == [False, False, True]
    assert server.turned_away == ["address"]
    for transport in transports[:2]:
        transport.disconnect()
    assert [server.factory.crowd.has(client) for client in (b"203.0.113.1", b"203.0.113.2")] == [0, 0]


def test_what_is_closed_before_its_header_is_counted_as_turned_away() -> None:
    """Where the gateway is full of connections that are in use."""
    server = Server(None)
    server.factory.settings = evolve(server.factory.settings, max_connections=1)
    client = server.came()
    assert client
    client.send(GET)
    assert ProxiedFactory(server.factory, server.factory).buildProtocol(PEER) is None
    assert server.turned_away == ["full"]


def test_an_address_that_left_takes_no_memory() -> None:
    """However many addresses there were."""
    crowd = Crowd()
    peers = [b"198.51.%d.%d" % (number // 256, number % 256) for number in range(2_000)]
    for peer in peers:
        crowd.came(peer)
    assert [crowd.has(peer) for peer in peers[:3]] == [1, 1, 1]
    for peer in peers:
        crowd.left(peer)
    assert crowd._open == {}


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), b"192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 1), b"2001:db8::1"),
        (IPv6Address("TCP", "::ffff:0:c000:201", 1), b"::ffff:0:c000:201"),
        (IPv4Address("TCP", "192.0.2.1", 1), b"192.0.2.1"),
        (UNIXAddress("/run/x"), UNIX_PEER),
    ],
)
def test_the_address_of_a_peer(address: Any, peer: bytes) -> None:
    """An IPv4 client of a listener for both kinds has its IPv4 address, for logs, limits and services."""
    assert peer_of(address) == peer
