"""Whose request it is, where that decides what may be seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from apigw.contract.peers import Peers, came_from
from apigw.wire.request import Request

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
    stream: Any = SimpleNamespace(peer=peer.encode())
    headers = [(name.encode(), value.encode()) for name, value in fields]
    request = Request(stream, b"GET", b"/metrics", b"/metrics", b"", b"a", headers, b"HTTP/1.1", 0)
    assert came_from(ALLOWED, Peers(["127.0.0.0/8"]), request) == with_proxy
    assert came_from(ALLOWED, Peers(), request) == without
