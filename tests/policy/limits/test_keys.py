"""Whom a limit counts by."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigw.policy.limits.keys import network_key, scope_key

USERS = st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789:\0|"), max_size=60)


@settings(max_examples=300)
@given(st.tuples(USERS, USERS), st.tuples(USERS, USERS))
def test_no_two_callers_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Nobody spends another's quota by choosing an odd name, and no name makes a long key."""
    keys = [scope_key("user", provider, user, "192.0.2.1") for provider, user in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert all(len(key) <= 40 for key in keys)
    assert scope_key("user", None, None, one[1]) != keys[0]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("", "unix", False),
    ],
)
def test_addresses_are_counted_by_who_holds_them(first: str, second: str, same: bool) -> None:
    """One IPv6 customer is one caller; an IPv4 caller is the same one on a dual-stack socket."""
    for scope in ("ip", "user"):
        keys = [scope_key(scope, None, None, address) for address in (first, second)]
        assert (keys[0] == keys[1]) is same


def test_scopes_count_by_what_they_say() -> None:
    """`ip` does not look at who is signed in, and `endpoint` at nobody."""
    assert scope_key("ip", "main", "alice", "192.0.2.1") == scope_key("ip", None, None, "192.0.2.1")
    assert scope_key("user", "main", "alice", "192.0.2.1") == scope_key("user", "main", "alice", "192.0.2.2")
    assert scope_key("user", "main", "alice", "::1") != scope_key("user", "other", "alice", "::1")
    assert scope_key("endpoint", "main", "alice", "192.0.2.1") == b""


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:1:2::3", "3620010db80001"),
        ("2001:db8:1:ffff::", "3620010db80001"),
        ("2001:db8:2::1", "3620010db80002"),
        ("fe80::1%eth0", "36fe8000000000"),
        ("192.0.2.1", None),
        ("::ffff:192.0.2.1", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_a_network_is_what_a_site_has(address: str, network: str | None) -> None:
    """Only IPv6 has one."""
    found = network_key(address)
    assert (None if found is None else found.hex()) == network
