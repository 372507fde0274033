"""Who may read what the admin listener shows, and who may change something there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock

from apigw import errors
from apigw.admin.writes import MOST_ADDRESSES, MOST_WRONG, WINDOW, Writes, may_read

TOKEN = b"a token of at least 16"


def asked(host: str, token: bytes = TOKEN, peer: bytes = b"192.0.2.9", unix: bool = False) -> Any:
    here = UNIXAddress(b"/run/a") if unix else IPv4Address("TCP", "10.1.2.3", 9090)
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer " + token)]
    transport = SimpleNamespace(getHost=lambda: here)
    return SimpleNamespace(authority=host.encode(), transport=transport, headers=headers, peer=peer, path=b"/circuits")


@pytest.mark.parametrize(
    ("host", "may"),
    [
        *[
            (host, True)
            for host in ("localhost", "localhost:9090", "LOCALHOST", "127.0.0.1:9090", "[::1]:9090", "[::1]")
        ],
        *[(host, True) for host in ("10.1.2.3", "192.0.2.77:1", "gw.internal:9090", "GW.internal", "")],
        *[(host, False) for host in ("evil.test", "evil.test:9090", "localhost.evil.test", "127.0.0.1.evil.test")],
        *[(host, False) for host in ("a.gw.internal", "xgw.internal", "0x7f000001", "127.1", "[::1].evil.test")],
    ],
)
def test_by_which_names_it_may_be_read(host: str, may: bool) -> None:
    """Addresses, ``localhost`` and what the configuration lists: any other name could be a web page's own."""
    try:
        may_read(asked(host), ["Gw.Internal"])
        found = True
    except errors.Misdirected:
        found = False
    assert found == may
    may_read(asked(host, unix=True), [])


def outcome(writes: Writes, request: Any) -> int:
    try:
        writes.check(request)
    except errors.GatewayError as error:
        return error.status
    return 200


def test_only_so_many_wrong_tokens_are_looked_at() -> None:
    """Of one address in a minute; then it waits, whatever it sends, and others do not."""
    clock = Clock()
    noted: list[tuple[str, str, str]] = []
    writes = Writes(clock.seconds, lambda: TOKEN, lambda event, outcome, by, **_: noted.append((event, outcome, by)))
    wrong = asked("localhost", b"x" * 20)
    assert outcome(writes, asked("localhost")) == 200
    for _ in range(MOST_WRONG):
        assert outcome(writes, wrong) == 401
    assert outcome(writes, wrong) == 429
    assert noted == [("admin_token", "wrong", "192.0.2.9")] * MOST_WRONG
    assert outcome(writes, asked("localhost")) == 429
    assert outcome(writes, asked("localhost", peer=b"192.0.2.10")) == 200
    clock.advance(WINDOW)
    assert outcome(writes, asked("localhost")) == 200
    assert outcome(writes, wrong) == 401


def test_all_addresses_of_one_client_are_one() -> None:
    """Who has a /64 of IPv6 has no more guesses by it; another network is another client."""
    writes = Writes(Clock().seconds, lambda: TOKEN)
    for number in range(MOST_WRONG):
        assert outcome(writes, asked("localhost", b"x", b"2001:db8::%x" % number)) == 401
    assert outcome(writes, asked("localhost", b"x", b"2001:db8::1:0:0:1")) == 429
    assert outcome(writes, asked("localhost", b"x", b"2001:db8:0:1::1")) == 401


def test_what_is_kept_of_wrong_tokens_is_bounded() -> None:
    """However many addresses send them."""
    writes = Writes(Clock().seconds, lambda: TOKEN)
    for number in range(MOST_ADDRESSES + 50):
        assert outcome(writes, asked("localhost", b"x", b"%d" % number)) == 401
    assert len(writes._wrong) == MOST_ADDRESSES
