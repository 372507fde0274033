"""What limits count by: headers, claims, and several together; and what a request can send in their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.limits import concurrent, limit
from support.routed import Peer

from apigw.contract.exchange import Driver, Exchange
from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.model import By
from apigw.wire.headers import Header
from apigw.wire.request import Request

CALLERS = Callers()
TENANT, APP = By(header="X-Tenant"), By(header="X-App")
CLAIM = By(claim="org.tenant")


def exchange(*headers: Header, principal: Principal | None = None, peer: bytes = b"192.0.2.1") -> Exchange:
    stream = Peer(False)
    stream.peer = peer
    request = Request(stream, b"GET", b"/a", b"/a", b"", b"a", list(headers), b"HTTP/1.1", 0)
    made = Exchange(Driver(), request, Peers(), 0.0)
    made.principal = principal
    return made


def by(*dimensions: str | By) -> Any:
    return limit(scope=None, by=dimensions)


def key(of: Any, *headers: Header, **rest: Any) -> bytes:
    return CALLERS.key(exchange(*headers, **rest), of)


def with_claims(claims: object, provider: str = "main") -> Principal:
    principal = Principal(provider, "ada")
    principal.document = json.dumps(claims).encode()
    return principal


def tenant(value: object, provider: str = "main") -> bytes:
    return key(by(CLAIM), principal=with_claims({"org": {"tenant": value}}, provider))


ADDRESS = key(limit(scope="ip"))


@pytest.mark.parametrize(("scope", "short"), [("user", ("principal",)), ("ip", ("address",)), ("endpoint", ())])
@pytest.mark.parametrize("make", [limit, concurrent])
def test_a_scope_is_a_short_form(make: Any, scope: str, short: tuple[str, ...]) -> None:
    """Written either way a limit is the same: its counts stay when it is rewritten."""
    one, other = make(scope=scope), make(scope=None, by=short)
    for principal in (None, Principal("main", "ada")):
        assert key(one, principal=principal) == key(other, principal=principal)
    assert (one.id, one.series) == (other.id, other.series)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-tenant", b"")],
        [(b"x-tenan", b"acme"), (b"x-tenant-id", b"acme")],
    ],
)
def test_a_header_that_is_missing_counts_by_the_address(headers: list[Header]) -> None:
    """So does an empty one; nobody is without a count."""
    assert key(by(TENANT), *headers) == ADDRESS
    assert key(by(TENANT), *headers, peer=b"192.0.2.9") != ADDRESS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([(b"x-tenant", b"acme")], [(b"x-tenant", b"acme")], True),
        ([(b"x-tenant", b"acme")], [(b"x-tenant", b"Acme")], False),
        ([(b"x-tenant", b"a"), (b"x-tenant", b"b")], [(b"x-tenant", b"a, b")], True),
        ([(b"x-tenant", b"a"), (b"x-tenant", b"b")], [(b"x-tenant", b"b"), (b"x-tenant", b"a")], False),
        ([(b"x-tenant", b"a"), (b"x-tenant", b"")], [(b"x-tenant", b"a")], True),
        ([(b"x-tenant", b"J\xc3\xb6rg")], [(b"x-tenant", b"J\xf6rg")], False),
        ([(b"x-tenant", b"\xff")], [(b"x-tenant", b"\xff")], True),
        ([(b"x-tenant", b"x" * 10_240)], [(b"x-tenant", b"x" * 10_239)], False),
        ([(b"x-tenant", b"4\xc0\x00\x02\x01")], [], False),
        ([(b"x-tenant", b"a"), (b"x-app", b"b")], [(b"x-tenant", b"a")], True),
    ],
)
def test_values_of_a_header(one: list[Header], other: list[Header], same: bool) -> None:
    """Compared as bytes; several fields are one list, and none can be taken for an address."""
    keys = [key(by(TENANT), *each) for each in (one, other)]
    assert (keys[0] == keys[1]) is same
    assert all(len(each) <= 40 for each in keys)


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_claim_is_a_value_and_null_is_none(value: object) -> None:
    """A provider that says an empty text says something."""
    assert (tenant(value) == ADDRESS) is (value is None)


@pytest.mark.parametrize("claims", [{}, {"org": "acme"}, {"org": []}, {"org": {"tenant": None}}, {"tenant": "acme"}])
def test_a_claim_that_is_missing_counts_by_the_address(claims: object) -> None:
    """Also where the path leads through what is no map, and for an anonymous caller."""
    assert key(by(CLAIM), principal=with_claims(claims)) == ADDRESS
    assert key(by(CLAIM)) == ADDRESS


VALUES = [
    "acme",
    "1",
    1,
    1.5,
    True,
    False,
    "true",
    0,
    ["acme"],
    ["acme", "b"],
    {"id": 1},
    {"id": "1"},
    [],
    {},
    "[]",
    "x" * 9000,
]
VALUES += [["x" * 9000], list(range(2000)), "J\u00f6rg", "\ud800", "s", '"acme"']


def test_claims_of_any_kind_are_values() -> None:
    """Lists, maps and huge ones too; no two kinds share a count, and maps have no order."""
    keys = [tenant(value) for value in VALUES]
    assert len(set(keys)) == len(VALUES)
    assert all(len(each) <= 40 for each in keys)
    assert tenant({"a": 1, "b": 2}) == tenant({"b": 2, "a": 1})


def test_a_tenant_of_one_provider_is_none_of_another() -> None:
    """Nobody spends the count of a stranger by a token of his own provider."""
    assert tenant("acme", "main") != tenant("acme", "partner")


TEXTS = st.binary(max_size=50) | st.sampled_from([b"", b"a", b"1:", b"2:aa"])


@settings(max_examples=200, deadline=None)
@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS))
def test_no_two_pairs_share_a_key(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> None:
    """Values cannot be moved from one header to the other; what is missing is the address."""
    both = by(TENANT, APP)
    keys = [key(both, (b"x-tenant", pair[0]), (b"x-app", pair[1])) for pair in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert all(len(each) <= 40 for each in keys)


def test_several_are_one_key() -> None:
    """The order in which they are written is no matter, of the key and of what the limit is known by."""
    ada, bob = Principal("main", "ada"), Principal("main", "bob")
    one, other = by("principal", TENANT), by(TENANT, "principal")
    a, b = (b"x-tenant", b"a"), (b"x-tenant", b"b")
    keys = [key(one, header, principal=principal) for header in (a, b) for principal in (ada, bob, None)]
    assert len(set(keys)) == 6
    assert keys == [key(other, header, principal=principal) for header in (a, b) for principal in (ada, bob, None)]
    assert (one.id, one.scope) == (other.id, other.scope)
    assert key(by("address", TENANT), a, peer=b"192.0.2.9") != key(by("address", TENANT), a)
