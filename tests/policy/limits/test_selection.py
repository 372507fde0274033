"""Which limits apply to what a route matches."""

from __future__ import annotations

import pytest
from support.limits import limit

from apigw.policy.limits.plans import of_addresses
from apigw.policy.limits.selection import select
from apigw.routing.pattern import Pattern


def test_a_route_knows_the_limits_that_can_apply_to_it() -> None:
    """Limits reach narrower and wider routes, and only the paths that they name."""
    everywhere, search, other = limit(endpoint="/api/*"), limit(endpoint="/api/search"), limit(endpoint="/admin/*")
    limits = (everywhere, search, other)
    wide = select(limits, Pattern.parse("/api/:what"))
    assert (wide.always, wide.sometimes) == ((everywhere,), (search,))
    assert wide.of(b"/api/search", b"") == (everywhere, search)
    assert wide.of(b"/api/users", b"") == (everywhere,)
    narrow = select(limits, Pattern.parse("/api/search"))
    assert narrow.of(b"/api/search", b"") == (everywhere, search)
    assert not select(limits, Pattern.parse("/static/*"))


HOST = Pattern.parse("/api/users")


@pytest.mark.parametrize(
    ("limited", "served", "found"),
    [
        ((), ("a.test",), "always"),
        (("a.test",), (), "sometimes"),
        (("a.test",), ("a.test",), "always"),
        (("a.test",), ("b.test",), "never"),
        (("a.test",), ("a.test", "b.test"), "sometimes"),
        (("a.test", "b.test"), ("a.test", "b.test"), "always"),
        (("*.test",), ("a.test", "*.b.test", "*.test"), "always"),
        (("*.test",), ("test",), "never"),
        (("*.b.test",), ("*.test",), "sometimes"),
        (("a.b.test",), ("*.test",), "sometimes"),
        (("*.b.test",), ("*.a.test",), "never"),
        (("[::1]",), ("[::1]",), "always"),
    ],
)
def test_limits_of_hosts(limited: tuple[str, ...], served: tuple[str, ...], found: str) -> None:
    """A limit of a host is tried where the route may serve it, and applies without a look where it serves no other."""
    of = limit(endpoint="/api/*", hosts=limited)
    selection = select((of,), HOST, served)
    assert selection.always == ((of,) if found == "always" else ())
    assert selection.sometimes == ((of,) if found == "sometimes" else ())


def test_a_limit_of_a_host_applies_to_that_host() -> None:
    """The host is compared as for routes: without port and case."""
    of = limit(endpoint="/api/*", hosts=("a.test", "*.b.test"))
    selection = select((of,), HOST, ())
    for host in (b"a.test", b"A.test.:80", b"x.y.b.test"):
        assert selection.of(b"/api/users", host) == (of,)
    for host in (b"", b"b.test", b"c.test"):
        assert selection.of(b"/api/users", host) == ()
    unmatched = limit(endpoint="unmatched", hosts=("a.test",))
    assert select((unmatched,), None).of(b"/x", b"a.test") == (unmatched,)
    assert select((unmatched,), None).of(b"/x", b"b.test") == ()


def test_limits_of_two_hosts_count_apart() -> None:
    """One endpoint of two hosts has two counts and two names."""
    one, other, all_hosts = limit(hosts=("a.test",)), limit(hosts=("b.test", "c.test")), limit()
    assert len({one.id, other.id, all_hosts.id}) == 3
    assert (one.endpoint, other.endpoint) == (f"a.test{all_hosts.endpoint}", f"b.test,c.test{all_hosts.endpoint}")


def test_a_401_is_charged_to_the_limits_of_addresses() -> None:
    """Whoever guesses tokens runs out of tries, but spends no user's quota."""
    by_ip, by_user = limit(2), limit(2, scope="user")
    assert of_addresses((by_ip, by_user)) == (by_ip,)
