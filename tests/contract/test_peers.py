"""Whose request it is, behind proxies that write what they know in their own ways; and what it may see."""

from __future__ import annotations

import pytest

from apigw.contract.peers import Peers, came_from
from apigw.wire.request import Request, Stream

PEER = b"10.0.0.1"


def client(claimed: bytes, peer: bytes = PEER, trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> bytes:
    stream = Stream(peer, False)
    fields = [(b"x-forwarded-for", claimed)]
    return Peers(trusted).client_address(Request(stream, b"GET", b"/", b"/", b"", b"a", fields, b"HTTP/1.1", 0))


@pytest.mark.parametrize(
    ("claimed", "address"),
    [
        (b"203.0.113.7", b"203.0.113.7"),
        (b"203.0.113.7:5120", b"203.0.113.7"),
        (b" 203.0.113.7:1\t", b"203.0.113.7"),
        (b"2001:db8::1", b"2001:db8::1"),
        (b"[2001:db8::1]", b"2001:db8::1"),
        (b"[2001:DB8:0::1]:443", b"2001:db8::1"),
        (b"[::ffff:203.0.113.7]:80", b"203.0.113.7"),
        (b"198.51.100.1, 203.0.113.7:5120", b"203.0.113.7"),
        (b"203.0.113.7:5120, 10.9.9.9:80", b"203.0.113.7"),
        (b"203.0.113.7:5120,[::1]", b"::1"),
        *((garbage, PEER) for garbage in (
            b"203.0.113.7:", b"203.0.113.7:123456", b"203.0.113.7:http", b":80", b"203.0.113.300:80",
            b"203.0.113.7:80:80",
            b"[2001:db8::1", b"2001:db8::1]", b"[2001:db8::1]443", b"[2001:db8::1]:", b"[]", b"[]:80", b"[[::1]]",
            b"fe80::1%eth0", b"[fe80::1%eth0]:80", b"unknown", b"_hidden", b"unix:", b'"203.0.113.7"',
            b"203.0.113.7 80",
            b"203.0.113.7\x0b", b"0x7f.1", b"127.1", b"010.8.8.8", b"\xff", b"",
        )),
    ],
)  # fmt: skip
def test_the_forms_of_an_address(claimed: bytes, address: bytes) -> None:
    """An address is read with its port and in brackets; of what is no address, the hop that sent it is the client."""
    assert client(claimed) == address


def test_the_last_of_many_proxies() -> None:
    """However many a client names, the time is that of 64; before them nobody is certain."""
    assert client(b"203.0.113.7" + b", 10.0.0.2" * 64) == b"203.0.113.7"
    stream = Stream(PEER, False)
    fields = [(b"x-forwarded-for", b"203.0.113.7"), *[(b"x-forwarded-for", b"10.0.0.2,10.0.0.3")] * 1000]
    request, peers = Request(stream, b"GET", b"/", b"/", b"", b"a", fields, b"HTTP/1.1", 0), Peers(["10.0.0.0/8"])
    assert peers.client_address(request) == b"10.0.0.2"
    assert not peers.is_certain(b"10.0.0.2", request)
    assert not came_from(Peers(["10.0.0.0/8"]), peers, request)


@pytest.mark.parametrize(
    ("peer", "trusted", "address"),
    [
        (b"unix:", ("unix:",), b"203.0.113.7"),
        (b"unix:", ("10.0.0.0/8",), b"unix:"),
        (b"unix:", ("0.0.0.0/0", "::/0"), b"unix:"),
        (PEER, ("unix:",), PEER),
        (PEER, ("unix:", "10.0.0.0/8"), b"203.0.113.7"),
    ],
)
def test_who_comes_by_a_unix_socket(peer: bytes, trusted: tuple[str, ...], address: bytes) -> None:
    """A peer without an address is a trusted proxy where ``unix:`` says so, and no network does."""
    assert client(b"203.0.113.7", peer, trusted) == address


ALLOWED = Peers(["127.0.0.0/8", "::1/128", "192.0.2.9"])


@pytest.mark.parametrize(
    ("peer", "fields", "with_proxy", "without"),
    [
        ("127.0.0.1", [], True, True),
        ("::1", [], True, True),
        ("203.0.113.7", [], False, False),
        ("", [], False, False),
        # A proxy on the same machine, which is trusted or is not.
        ("127.0.0.1", [("x-forwarded-for", "203.0.113.7")], False, False),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.9")], True, False),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.9, 203.0.113.7")], False, False),
        ("127.0.0.1", [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "192.0.2.9")], True, False),
        ("127.0.0.1", [("x-forwarded-for", "203.0.113.7:5120")], False, False),
        ("127.0.0.1", [("x-forwarded-for", "192.0.2.9:5120")], True, False),
        ("127.0.0.1", [("x-forwarded-for", "fe80::1%eth0")], False, False),
        ("127.0.0.1", [("x-forwarded-for", "unknown")], False, False),
        ("127.0.0.1", [("x-forwarded-for", "")], False, False),
        ("127.0.0.1", [("forwarded", "for=127.0.0.1")], False, False),
        ("127.0.0.1", [("via", "1.1 squid")], False, False),
        ("127.0.0.1", [("x-real-ip", "127.0.0.1")], False, False),
        ("127.0.0.1", [("x-forwarded-proto", "https")], False, False),
        # Nobody takes the word of a stranger.
        ("203.0.113.7", [("x-forwarded-for", "127.0.0.1")], False, False),
        ("192.0.2.9", [("x-forwarded-for", "127.0.0.1")], False, False),
    ],
)
def test_who_may_see_what_is_for_some(
    peer: str, fields: list[tuple[str, str]], with_proxy: bool, without: bool
) -> None:
    """The client, as far as that is certain: what came through a proxy that is not trusted could be from anybody."""
    stream = Stream(peer.encode(), False)
    headers = [(name.encode(), value.encode()) for name, value in fields]
    request = Request(stream, b"GET", b"/metrics", b"/metrics", b"", b"a", headers, b"HTTP/1.1", 0)
    assert came_from(ALLOWED, Peers(["127.0.0.0/8"]), request) == with_proxy
    assert came_from(ALLOWED, Peers(), request) == without
