"""Which limits apply to what a route matches."""

from __future__ import annotations

from support.limits import limit

from apigw.policy.limits.selection import Selection, select
from apigw.routing.pattern import Pattern


def test_a_route_knows_the_limits_that_can_apply_to_it() -> None:
    """Limits reach narrower and wider routes, and only the paths that they name."""
    everywhere, search, other = limit(endpoint="/api/*"), limit(endpoint="/api/search"), limit(endpoint="/admin/*")
    limits = (everywhere, search, other)
    wide = select(limits, Pattern.parse("/api/:what"))
    assert (wide.always, wide.sometimes) == ((everywhere,), (search,))
    assert wide.of(b"/api/search") == (everywhere, search)
    assert wide.of(b"/api/users") == (everywhere,)
    narrow = select(limits, Pattern.parse("/api/search"))
    assert narrow.of(b"/api/search") == (everywhere, search)
    assert not select(limits, Pattern.parse("/static/*"))


def test_a_401_is_charged_to_the_limits_of_addresses() -> None:
    """Whoever guesses tokens runs out of tries, but spends no user's quota."""
    by_ip, by_user = limit(2), limit(2, scope="user")
    found = Selection((by_ip, by_user), (by_user,)).of_addresses()
    assert (found.always, found.sometimes) == ((by_ip,), ())
