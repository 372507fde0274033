"""The rules about header fields: what a service is sent, and what a client gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw.contract.exchange import request_id
from apigw.contract.peers import Peers
from apigw.proxy.headers import CopyRules, client_headers, upstream_fields
from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream


def request(
    *headers: tuple[bytes, bytes],
    method: bytes = b"GET",
    length: int | None = 0,
    protocol: bytes = b"HTTP/1.1",
    peer: bytes = b"192.0.2.1",
    secure: bool = False,
) -> Request:
    stream = Stream(peer, secure)
    return Request(stream, method, b"/a?b", b"/a", b"?b", b"shop.example", list(headers), protocol, length)


def head(
    request: Request,
    peers: Peers | None = None,
    own: Headers | None = None,
    drop_token: bool = False,
    rules: CopyRules | None = None,
) -> bytes:
    """The fields as HTTP/1.1 sends them, one to a line."""
    trusted = peers is not None and peers.trusts(request.stream.peer)
    if rules is None:
        rules = CopyRules(frozenset({b"authorization"}) if drop_token else frozenset())
    fields = upstream_fields(request, trusted, b"id", own or [], rules)
    return b"\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields)


def test_all_the_fields() -> None:
    """A service is sent what the client sent, then what the gateway knows of it, then who it is."""
    assert head(request((b"accept", b"x"), (b"x-empty", b"")), own=[(b"x-user-id", b"me")]) == (
        b"\r\n"
        b"accept: x\r\n"
        b"x-empty: \r\n"
        b"x-forwarded-for: 192.0.2.1\r\n"
        b"x-forwarded-proto: http\r\n"
        b"x-forwarded-host: shop.example\r\n"
        b"via: 1.1 apigw\r\n"
        b"x-request-id: id\r\n"
        b"x-user-id: me\r\n"
    )


def test_framing_is_not_copied() -> None:
    """How long a body is says the message, whatever the client's fields say of it."""
    sent = head(request((b"content-length", b"77"), (b"transfer-encoding", b"gzip"), length=5))
    assert b"77" not in sent
    assert b"gzip" not in sent


@pytest.mark.parametrize(("protocol", "via"), [(b"HTTP/1.0", b"1.0"), (b"HTTP/1.1", b"1.1"), (b"HTTP/2", b"2")])
def test_via_names_the_clients_version(protocol: bytes, via: bytes) -> None:
    """RFC 9110 §7.6.3: a service is told the wrong version."""
    assert b"\r\nvia: %b apigw\r\n" % via in head(request(protocol=protocol))


ODD = "!#$%&'*+-.^_`|~"
"""All that a field name may have besides letters and digits (RFC 9110 §5.6.2)."""


@given(
    st.lists(st.sampled_from(ODD), min_size=2, max_size=2),
    st.sampled_from(["x-user-id", "x-user-roles", "x-auth-provider"]),
)
def test_an_identity_is_dropped_however_it_is_spelled(odd: list[str], name: str) -> None:
    """A service that takes X+User~ID for X-User-ID is not sent it, not by a trusted proxy either."""
    spelled = "{1}{0[0]}{2}{0[1]}{3}".format(odd, *name.split("-"))
    for peers in (Peers(), Peers(["0.0.0.0/0"])):
        assert b"mallory" not in head(request((spelled.encode(), b"mallory")), peers)


OF_PROXIES = [f"x-forwarded-{what}" for what in ("for", "proto", "host", "port", "client-cert")] + ["x-real-ip"]


@pytest.mark.parametrize(
    ("name", "from_a_stranger", "from_a_proxy"),
    [
        ("x-user-id", False, False),
        *((name, False, True) for name in OF_PROXIES),
        ("content-length", False, False),
        ("transfer-encoding", False, False),
        ("keep-alive", False, False),
        ("proxy-connection", False, False),
        ("http2-settings", False, False),
        ("x-request-id", False, False),
        ("x-user-id2", True, True),
        ("x-userid", True, True),
        ("user-id", True, True),
        ("x-forwarder", True, True),
        ("content-type", True, True),
        ("a-host", True, True),
    ],
)
def test_names_are_compared_as_the_most_careless_server_does(
    name: str, from_a_stranger: bool, from_a_proxy: bool
) -> None:
    """CGI has letters, digits and _ only: every other character becomes one. A proxy's word counts as it is spelled."""
    for odd in ODD:
        sent = request((name.replace("-", odd).encode(), b"mallory"))
        assert (b"mallory" in head(sent)) is from_a_stranger, odd
        believed = from_a_proxy and (name not in OF_PROXIES or odd == "-")
        assert (b"mallory" in head(sent, Peers(["0.0.0.0/0"]))) is believed, odd


def test_a_proxys_chain_is_not_doubled_by_an_odd_spelling() -> None:
    """What a client slipped through the trusted proxy as X_Forwarded_For does not stand beside the real one."""
    chain = ((b"x-forwarded-for", b"198.51.100.1"), (b"x_forwarded+for", b"203.0.113.66"))
    sent = head(request(*chain, peer=b"10.0.0.1"), Peers(TRUSTED))
    assert b"x-forwarded-for: 198.51.100.1, 10.0.0.1\r\n" in sent
    assert b"203.0.113.66" not in sent


def test_a_token_may_stay_here() -> None:
    """A service sees a token that is not for it."""
    with_token = request((b"authorization", b"Bearer t"))
    assert b"Bearer t" in head(with_token)
    assert b"Bearer t" not in head(with_token, drop_token=True)


def test_names_are_remembered_up_to_a_bound() -> None:
    """Each new header name of an attacker costs memory for ever."""
    rules = CopyRules()
    for number in range(10_000):
        head(request((b"x-%d" % number, b"1")), rules=rules)
    assert len(rules.of_others) <= 4096
    assert b"x-user-id" not in head(request((b"x-user-id", b"me")), rules=rules)
    assert b"\r\nx-late: 1\r\n" in head(request((b"x-late", b"1")), rules=rules)


def test_long_names_are_judged_and_not_remembered() -> None:
    """What a client calls its headers does not stay in memory, and is looked at all the same."""
    rules = CopyRules()
    for number in range(100):
        assert b"kept" in head(request((b"x-%d-" % number + b"y" * 32_000, b"kept")), rules=rules)
        assert b"gone" not in head(request((b"x-forwarded-%d-" % number + b"y" * 32_000, b"gone")), rules=rules)
    assert sum(len(name) for name in rules.of_others) < 1000


def test_what_is_withheld_of_a_request() -> None:
    """From the client in every spelling, and from the gateway; what is sent instead comes last."""
    rules, asked = CopyRules(), request((b"x-a", b"1"), (b"x_a", b"2"), (b"x-b", b"3"))

    def names(*withheld: bytes) -> list[bytes]:
        fields = upstream_fields(
            asked, False, b"id", [(b"x-user-id", b"me")], rules, frozenset(withheld), [(b"x-a", b"")]
        )
        return [name for name, _ in fields if name != b"x-forwarded-host"]

    ours = [b"x-forwarded-for", b"x-forwarded-proto", b"via", b"x-request-id", b"x-user-id"]
    for _ in range(2):
        assert names(b"x-a") == [b"x-b", *ours, b"x-a"]
        assert names(b"x-b", b"via", b"x-user-id") == [b"x-a", b"x_a", ours[0], ours[1], b"x-request-id", b"x-a"]
        assert names() == [b"x-a", b"x_a", b"x-b", *ours, b"x-a"]


def test_sets_of_withheld_names_are_remembered_up_to_a_bound() -> None:
    """A plugin may make names of what clients send. Each set holds for its request all the same."""
    rules = CopyRules()
    for number in range(200):
        name = b"x-%d" % number
        fields = upstream_fields(request((name, b"1"), (b"x-b", b"2")), False, b"id", (), rules, frozenset({name}))
        assert [field for field in fields if field[0] in (name, b"x-b")] == [(b"x-b", b"2")]
    assert len(rules.less) <= 64


TRUSTED = ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("peer", "claimed", "client"),
    [
        (b"192.0.2.1", [], b"192.0.2.1"),
        (b"192.0.2.1", [b"198.51.100.1"], b"192.0.2.1"),
        (b"10.0.0.1", [], b"10.0.0.1"),
        (b"10.0.0.1", [b"198.51.100.1"], b"198.51.100.1"),
        (b"10.0.0.1", [b"203.0.113.7, 198.51.100.1"], b"198.51.100.1"),
        (b"10.0.0.1", [b"203.0.113.7", b"198.51.100.1"], b"198.51.100.1"),
        (b"10.0.0.1", [b"203.0.113.7, 198.51.100.1, 10.0.0.2"], b"198.51.100.1"),
        (b"10.0.0.1", [b"10.0.0.3,10.0.0.2"], b"10.0.0.3"),
        (b"::1", [b"2001:DB8::1"], b"2001:db8::1"),
        (b"::ffff:10.0.0.1", [b"::ffff:198.51.100.1"], b"198.51.100.1"),
        (b"10.0.0.1", [b"nonsense"], b"10.0.0.1"),
        (b"10.0.0.1", [b"198.51.100.1, nonsense"], b"10.0.0.1"),
        (b"10.0.0.1", [b"198.51.100.1, nonsense, 10.0.0.2"], b"10.0.0.2"),
        (b"10.0.0.1", [b""], b"10.0.0.1"),
        (b"unix:", [b"198.51.100.1"], b"unix:"),
        (b"10.0.0.1", [b"unix:"], b"10.0.0.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(
    peer: bytes, claimed: list[bytes], client: bytes
) -> None:
    """A caller gets round the limits of its address by making up another."""
    sent = request(*((b"x-forwarded-for", value) for value in claimed), peer=peer)
    assert Peers(TRUSTED).client_address(sent) == client


def test_a_trusted_proxy_is_continued_in_one_field() -> None:
    """A service reads only the first of two X-Forwarded-For, and that is the wrong one."""
    sent = head(
        request(
            (b"x-forwarded-for", b"198.51.100.1"),
            (b"x-forwarded-for", b"10.0.0.2"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"outside.example"),
            peer=b"10.0.0.1",
        ),
        Peers(TRUSTED),
    )
    assert sent.count(b"x-forwarded-for") == sent.count(b"x-forwarded-proto") == sent.count(b"x-forwarded-host") == 1
    assert b"\r\nx-forwarded-for: 198.51.100.1, 10.0.0.2, 10.0.0.1\r\n" in sent
    assert b"\r\nx-forwarded-proto: https\r\n" in sent
    assert b"\r\nx-forwarded-host: outside.example\r\n" in sent


def test_an_id_is_kept_if_it_can_be_logged() -> None:
    """A trace breaks at the gateway, or a log line in two."""
    assert request_id([(b"a", b"b"), (b"x-request-id", b"given")]) == b"given"
    bad: list[Headers] = [
        [],
        [(b"x-request-id", b"")],
        [(b"x-request-id", b"a b")],
        [(b"x-request-id", b"x" * 129)],
        [(b"x-request-id", b"\xe9")],
        [(b"x-request-id", b"a"), (b"x-request-id", b"a")],
    ]
    made = {request_id(headers) for headers in bad}
    assert len(made) == len(bad)
    assert all(len(one) == 32 and one.isalnum() for one in made)


def test_what_a_client_gets() -> None:
    """A client gets two ids, a length where there is no body, or none of the gateway's own headers."""
    sent: Headers = [
        (b"x-request-id", b"other"),
        (b"content-length", b"0"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    cookies = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]
    ending = [(b"vary", b"Origin"), (b"via", b"1.1 apigw"), (b"x-request-id", b"id")]
    own: Headers = [(b"vary", b"Origin")]
    assert client_headers(list(sent), 200, b"id", own) == [(b"content-length", b"0"), *cookies, *ending]
    assert client_headers(list(sent), 204, b"id", own) == [*cookies, *ending]
