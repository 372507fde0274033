"""Request targets: what is safe to route and to send on, byte for byte."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apigw.routing import trie
from apigw.wire.errors import Refused
from apigw.wire.target import (
    EMPTY_SEGMENT,
    ENCODED_SLASH,
    check_authority,
    check_served,
    check_target,
    oddities,
    split_absolute,
)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/?", b"/", b"?"),
        (b"/a", b"/a", b""),
        (b"/a/", b"/a/", b""),
        (b"/a/b.c/d..e/...", b"/a/b.c/d..e/...", b""),
        (b"/.well-known/x", b"/.well-known/x", b""),
        (b"/..a/.b", b"/..a/.b", b""),
        (b"/a?b?c/../d//e", b"/a", b"?b?c/../d//e"),
        (b"/a?%2f%00%5c", b"/a", b"?%2f%00%5c"),
        (b"/a?x=100%", b"/a", b"?x=100%"),
        (b"/a?%zz&%4", b"/a", b"?%zz&%4"),
        (b'/a?\\"<>[]{}|^`', b"/a", b'?\\"<>[]{}|^`'),
        (b"/%41%e2%82%ac", b"/%41%e2%82%ac", b""),
        (b"/%252e%252e/%252f", b"/%252e%252e/%252f", b""),
        (b"/a;b=c;d/e", b"/a;b=c;d/e", b""),
        (b"/a;", b"/a;", b""),
        (b"/a:b@c!$&'()*+,=-_~", b"/a:b@c!$&'()*+,=-_~", b""),
        (b'/[]{}|^`"<>', b'/[]{}|^`"<>', b""),
    ],
)
def test_safe(target: bytes, path: bytes, query: bytes) -> None:
    """An ordinary target reaches the service as the client sent it."""
    assert check_target(target) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        *(b"", b"a", b"?a", b"*", b"\\a", b"http://a/", b"%2Fa"),
        *(b"//", b"//a", b"/a//b", b"/a//", b"/;x", b"/a/;/b"),
        *(b"/.", b"/..", b"/a/.", b"/a/..", b"/./a", b"/a/../b", b"/.;x", b"/..;/a", b"/a/..;b=c/d"),
        *(b"/%2e", b"/%2E%2e", b"/.%2e/a", b"/%2e./a", b"/%2e%2E;x/a"),
        *(b"/a%2Fb", b"/a%2fb", b"/..%2fa", b"/a%5Cb", b"/a%5cb", b"/a\\b", b"/..\\a"),
        *(b"/%00", b"/%0a", b"/%0D", b"/%1f", b"/%7F", b"/a%09"),
        *(b"/a#b", b"/a?b#c", b"/#", b"/%", b"/%4", b"/%zz", b"/%4g"),
        *(b"/a b", b"/a\tb", b"/a\0", b"/a\r", b"/a\nb", b"/a\x7f", b"/\xc3\xa4", b"/a?\xff", b"/a? "),
    ],
)
def test_unsafe(target: bytes) -> None:
    """What two programs could read in two ways goes nowhere."""
    with pytest.raises(Refused) as refused:
        check_target(target)
    assert refused.value.status == 400


def plainly_safe(target: bytes) -> bool:
    """The same rules, written down without any thought of speed."""
    path = target.split(b"?")[0]
    if not path.startswith(b"/") or not all(0x21 <= byte <= 0x7E and byte != ord("#") for byte in target):
        return False
    if re.search(rb"%(?![0-9A-Fa-f]{2})", path) or b"\\" in path:
        return False
    *inner, last = path[1:].split(b"/")
    for segment in [*inner, *([last] if last else [])]:
        decoded = unquote_to_bytes(segment)
        if any(byte < 0x20 or byte == 0x7F or byte in b"/\\" for byte in decoded):
            return False
        # A parameter begins at a literal semicolon: an encoded one is part of the name.
        if unquote_to_bytes(segment.split(b";")[0]) in (b"", b".", b".."):
            return False
    return True


PARTS = (
    [b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%5C", b"%00", b"%3b", b"%", b"%4", b"%41", b";", b"?", b"#", b"\\", b"a", b"b c", b"\x00", b"\x7f", b"\xe4", b"*", b":", b"@", b'"', b"<", b"~", b"=", b"&"]  # noqa: E501
)  # fmt: skip


@given(
    st.one_of(
        st.lists(st.sampled_from(PARTS), max_size=10).map(lambda parts: b"/" + b"".join(parts)),
        st.lists(st.sampled_from(PARTS), max_size=10).map(b"".join),
        st.binary(max_size=10),
    )
)
@example(b"/%2e%3bx")
def test_against_plain_rules(target: bytes) -> None:
    """The quick way and the careful way never disagree, and nothing is changed on the way."""
    try:
        path, query = check_target(target)
    except Refused as refused:
        assert refused.status == 400
        assert not plainly_safe(target)
    else:
        assert plainly_safe(target)
        assert path + query == target
        assert b"?" not in path
        assert query[:1] in (b"", b"?")


@pytest.mark.parametrize(
    "authority",
    [
        b"a",
        b"a.example.com",
        b"a:80",
        b"a:",
        b"127.0.0.1:8080",
        b"[::1]",
        b"[::1]:80",
        b"[::ffff:1.2.3.4]",
        b"a_b~",
        b"%41",
    ],
)
def test_authorities(authority: bytes) -> None:
    """Every Host that an honest client sends is taken."""
    check_authority(authority)


@pytest.mark.parametrize(
    "authority",
    [b"", b":", b":80", b"a b", b"a/b", b"a?b", b"a#b", b"a@b", b"u:p@a", b"a:b", b"a:123456", b"a:80:80", b"[", b"[]", b"[a]", b"[::1", b"::1", b"[::1]a", b"[::1]:x", b"a\\b", b"\xe4", b"a\x00", b"a,b c", b"a%", b"a%4", b"a\n", b"a:80\n", b"<a>"],  # noqa: E501
)  # fmt: skip
def test_malformed_authorities(authority: bytes) -> None:
    """A Host that is none is refused, not passed on for somebody else to make sense of."""
    with pytest.raises(Refused) as refused:
        check_authority(authority)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("target", "host", "origin", "authority"),
    [
        (b"http://a/b?c", b"a", b"/b?c", b"a"),
        (b"HTTPS://A.example:80/", b"a.EXAMPLE:80", b"/", b"A.example:80"),
        (b"http://a", b"a", b"/", b"a"),
        (b"http://a?b", b"a", b"/?b", b"a"),
        (b"http://[::1]:80/x", b"[::1]:80", b"/x", b"[::1]:80"),
        (b"http://a/http://b/", b"a", b"/http://b/", b"a"),
        (b"http://a:80/", b"a", b"/", b"a:80"),
        (b"http://a/", b"a:80", b"/", b"a"),
        (b"http://a:/", b"a", b"/", b"a:"),
        (b"http://a:080/", b"a:", b"/", b"a:080"),
        (b"https://a:443/", b"A", b"/", b"a:443"),
        (b"http://[::1]/x", b"[::1]:80", b"/x", b"[::1]"),
        (b"http://a:81/", b"", b"/", b"a:81"),
    ],
)
def test_absolute(target: bytes, host: bytes, origin: bytes, authority: bytes) -> None:
    """A URL that names the Host goes on as a path. A port that is empty or missing is that of its scheme."""
    assert split_absolute(target, host) == (origin, authority)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://b/", b"a"),
        (b"http://a:443/", b"a"),
        (b"https://a:80/", b"a"),
        (b"http://a/", b"a:443"),
        (b"http://[::1]/", b"[::1]:8080"),
        (b"http://a:81/", b"a:80"),
        (b"http://a@b/", b"a"),
        (b"http:///a", b"a"),
        (b"http:/a", b"a"),
        (b"ftp://a/", b"a"),
        (b"://a/", b"a"),
        (b"a/b", b"a"),
        (b"a:80", b"a:80"),
        (b"http://", b""),
        *((b"http://a#b", b"a"), (b"http://a\\@b/", b"a"), (b"http://\0/", b"\0"), (b"", b"a")),
    ],
)
def test_absolute_refused(target: bytes, host: bytes) -> None:
    """A URL that disagrees with the Host could be routed by one and checked by the other."""
    with pytest.raises(Refused) as refused:
        split_absolute(target, host)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("target", "kept", "odd"),
    [
        (b"/a%2Fb", 1, 1),
        (b"/a%2fb?x=%2F//", 1, 1),
        (b"/%2F/x", 1, 1),
        (b"/a%2F%2Fb", 1, 1),
        (b"/a//b", 2, 2),
        (b"//", 2, 2),
        (b"/a//", 2, 2),
        (b"/a%2F//b", 3, 3),
        (b"/a/b", 3, 0),
        (b"/a?//", 3, 0),
        (b"/a%2Fb", 2, None),
        (b"/a//b", 1, None),
        (b"/a/..%2Fb", 3, None),
        (b"/a/%2e%2e%2fb", 3, None),
        (b"/a/b%2F..", 3, None),
        (b"/a/b%2F.;x", 3, None),
        (b"/a/x%2F%2E%2e%2Fb", 3, None),
        (b"/a//../b", 3, None),
        (b"/a/;x", 3, None),
        (b"/a%5Cb", 3, None),
        (b"/a\\b", 3, None),
        (b"/a%2", 3, None),
    ],
)
def test_oddities_that_are_kept(target: bytes, kept: int, odd: int | None) -> None:
    """An encoded slash and an empty segment pass where they are kept; a dot segment beside a slash does not."""
    if odd is None:
        with pytest.raises(Refused):
            check_target(target, kept)
    else:
        path, query = check_target(target, kept)
        assert path + query == target and oddities(path) == odd


def test_the_router_and_the_wire_mean_the_same_oddities() -> None:
    """The one says which are kept, the other finds them."""
    assert (ENCODED_SLASH, EMPTY_SEGMENT) == (trie.ENCODED_SLASH, trie.EMPTY_SEGMENT)


@pytest.mark.parametrize(
    ("authority", "served"),
    [
        (b"a.test", True),
        (b"A.Test.:443", True),
        (b"x.wild.test", True),
        (b"x.y.wild.test", False),
        (b"wild.test", False),
        (b"b.test", False),
        (b"192.0.2.1:8443", True),
        (b"[2001:db8::1]:8443", True),
        (b"[2001:db8::2]", False),
        (b"", True),
    ],
)
def test_hosts_of_a_certificate(authority: bytes, served: bool) -> None:
    """A connection to one host is not used for another that its certificate does not name."""
    hosts = frozenset({b"a.test", b"*.wild.test", b"192.0.2.1", b"[2001:db8::1]"})
    if served:
        check_served(hosts, authority)
    else:
        with pytest.raises(Refused) as refused:
            check_served(hosts, authority)
        assert refused.value.status == 421
