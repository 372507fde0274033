"""Which route a request takes by its host, its headers, query and cookies, and where a strict route ends the search."""

from __future__ import annotations

from typing import Any

import pytest

from apigw.config.addresses import route_host
from apigw.config.model import Condition, Route
from apigw.routing.conditions import Conditions, expression
from apigw.routing.configured import entry_of
from apigw.routing.hosts import Hosts, host_of
from apigw.routing.router import Router

Headers = list[tuple[bytes, bytes]]


def conditions(**of: dict[str, Any]) -> dict[str, Any]:
    """``headers={"X": "1", "Y": True, "Z": False, "A": "~x.*"}``: equal, present, absent, an expression."""
    made: dict[str, Any] = {}
    for kind, held in of.items():
        made[kind] = tuple(
            Condition(name, present=want)
            if isinstance(want, bool)
            else Condition(name, regex=want[1:])
            if want.startswith("~")
            else Condition(name, equal=want)
            for name, want in held.items()
        )
    return made


def router(*routes: tuple[str, Route]) -> Router[str]:
    return Router(entry_of(route, name) for name, route in routes)


def taken(
    routes: Router[str],
    path: bytes = b"/",
    host: bytes = b"",
    headers: Headers | None = None,
    query: bytes = b"",
    method: bytes = b"GET",
) -> str | None:
    match = routes.match(method, path, host, headers or [], query)
    return None if match is None else match.value


# Hosts


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"a.example", b"a.example"),
        (b"A.Example:8080", b"a.example"),
        (b"a.example.", b"a.example"),
        (b"a.example.:80", b"a.example"),
        (b"a.example:", b"a.example"),
        (b"192.0.2.1:80", b"192.0.2.1"),
        (b"[2001:DB8:0:0::1]:443", b"[2001:db8::1]"),
        (b"[1.2.3]", b""),
        (b"xn--BCHER-kva.example", b"xn--bcher-kva.example"),
        (b"a..example", b""),
        (b"a.example..", b"a.example."),
        (b".example", b""),
        (b"", b""),
        (b"a." * 200 + b"example", b""),
        (b"a" * 30000, b""),
    ],
)
def test_the_host_of_an_authority(authority: bytes, host: bytes) -> None:
    """Port, case, one dot at the end, and the notation of IPv6 do not matter; what cannot be named is nobody's."""
    assert host_of(authority) == host


NAMED = router(
    ("exact", Route("/*", hosts=("a.example",))),
    ("below", Route("/*", hosts=("*.example",))),
    ("deeper", Route("/*", hosts=("*.b.example",))),
    ("v4", Route("/*", hosts=("192.0.2.1",))),
    ("v6", Route("/*", hosts=("[2001:db8::1]",))),
    ("idn", Route("/*", hosts=(route_host("Bücher.test"),))),
    ("path", Route("/only", hosts=("c.example",))),
    ("rest", Route("/*")),
)


@pytest.mark.parametrize(
    ("host", "route"),
    [
        (b"a.example", "exact"),
        (b"A.EXAMPLE.:8443", "exact"),
        (b"x.example", "below"),
        (b"x.y.example", "below"),
        (b"x.a.example", "below"),
        (b"b.example", "below"),
        (b"x.b.example", "deeper"),
        (b"X.y.B.example:1", "deeper"),
        (b"example", "rest"),
        (b".example", "rest"),
        (b"x..example", "rest"),
        (b"xexample", "rest"),
        (b"a.example.test", "rest"),
        (b"192.0.2.1:80", "v4"),
        (b"192.0.2.01", "rest"),
        (b"[2001:db8::1]", "v6"),
        (b"[2001:DB8:0::1]:80", "v6"),
        (b"xn--bcher-kva.test", "idn"),
        (b"XN--bcher-KVA.test", "idn"),
        (b"a%2eexample", "rest"),
        (b"c.example", None),
        (b"", "rest"),
        (b"a.c." * 60 + b"example", "below"),
        (b"a.c." * 70 + b"example", "rest"),
    ],
)
def test_the_most_specific_host_is_chosen_first(host: bytes, route: str | None) -> None:
    """An exact name before the longest wildcard, before routes without hosts; then only its routes are tried."""
    assert taken(NAMED, b"/x", host) == route


def test_routes_of_another_host_are_not_tried() -> None:
    """What a host's routes do not match is a 404, also if a route without hosts would match it."""
    assert NAMED.allow(b"/x", b"c.example") == ()
    assert taken(NAMED, b"/only", b"c.example") == "path"
    assert NAMED.names(b"c.example:80") and not NAMED.names(b"other.test") and not NAMED.names(b"")


def test_methods_are_those_of_the_host() -> None:
    """405 names what the host allows, and not what others do."""
    routes = router(("a", Route("/x", methods=("GET",), hosts=("a.test",))), ("b", Route("/x", methods=("PUT",))))
    assert routes.allow(b"/x", b"a.test") == (b"GET", b"HEAD")
    assert routes.allow(b"/x", b"b.test") == (b"PUT",)


def test_one_route_for_several_hosts() -> None:
    """A route serves each of its hosts; others may serve the same path for other hosts."""
    routes = router(("ab", Route("/", hosts=("a.test", "b.test"))), ("c", Route("/", hosts=("c.test",))))
    assert [taken(routes, host=host) for host in (b"a.test", b"b.test", b"c.test", b"d.test")] == [
        "ab",
        "ab",
        "c",
        None,
    ]
    assert len(routes) == 2


def test_a_thousand_hosts_are_one_look_up() -> None:
    """How many hosts there are does not matter."""
    hosts: Hosts[int] = Hosts()
    for number in range(1000):
        hosts.set(f"h{number}.test", number)
    assert [hosts.find(b"h%d.test" % number) for number in (0, 999)] == [0, 999]
    assert hosts.find(b"h1000.test") is None and hosts.get("h7.test") == 7


# Conditions


@pytest.mark.parametrize(
    ("want", "values", "holds"),
    [
        ("1", [], False),
        ("1", [b"1"], True),
        ("1", [b"2"], False),
        ("1", [b"2", b"1"], True),
        ("1", [b"1 "], False),
        ("", [b""], True),
        ("ü", ["ü".encode()], True),
        (True, [b""], True),
        (True, [], False),
        (False, [], True),
        (False, [b""], False),
        ("~curl/.*", [b"curl/8.1"], True),
        ("~curl/.*", [b"xcurl/8.1"], False),
        ("~curl/.*", [b"x", b"curl/"], True),
        ("~curl", [b"curl/8"], False),
        ("~.*", [], False),
        ("~(?i)CURL", [b"curl"], True),
        ("~[\\x80-\\xff]+", [b"\xfc\xff"], True),
    ],
)
def test_conditions(want: object, values: list[bytes], holds: bool) -> None:
    """Equal, present, absent, an expression for a whole value: in headers, the query, and cookies alike."""
    headers: Headers = [(b"x-a", b"other"), *[(b"x-v", value) for value in values]]
    assert Conditions(conditions(of={"X-V": want})["of"]).hold(headers, b"") is holds
    query = b"?a=1&" + b"&".join(b"v=" + value.replace(b" ", b"+") for value in values)
    assert Conditions((), conditions(of={"v": want})["of"]).hold([], query) is holds
    if b"1 " not in values:
        cookies: Headers = [(b"cookie", b"a=b; " + b"; ".join(b"v=" + value for value in values))]
        assert Conditions((), (), conditions(of={"v": want})["of"]).hold(cookies, b"") is holds


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (b"?a%20b=c%2Bd", True),
        (b"?a+b=c%2bd", True),
        (b"?x&a+b=c%2bd&x", True),
        (b"?a+b=c+d", False),
        (b"?A+b=c%2bd", False),
        (b"?a+b", False),
        (b"?a+b=c%2bd%", False),
        (b"?", False),
        (b"", False),
    ],
)
def test_the_query_is_compared_after_decoding(query: bytes, holds: bool) -> None:
    """A client writes the same value in several ways."""
    assert Conditions((), conditions(of={"a b": "c+d"})["of"]).hold([], query) is holds


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ([b"plan=gold"], True),
        ([b"a=1; plan=gold; b=2"], True),
        ([b"a=1", b"plan=gold"], True),
        ([b"a=1;plan=gold"], True),
        ([b'plan="gold"'], False),
        ([b"plan=gold=x"], False),
        ([b"xplan=gold"], False),
        ([b"Plan=gold"], False),
        ([b"plan"], False),
        ([b"a=plan=gold"], False),
    ],
)
def test_cookies(fields: list[bytes], holds: bool) -> None:
    """A cookie is found wherever it stands, by its whole name, with its whole value."""
    headers = [(b"cookie", field) for field in fields]
    assert Conditions((), (), conditions(of={"plan": "gold"})["of"]).hold(headers, b"") is holds


def test_more_conditions_come_first_then_the_order() -> None:
    """The route of which most is true is taken, wherever it is written."""
    routes = router(
        ("plain", Route("/")),
        ("one", Route("/", **conditions(headers={"x-a": "1"}))),
        ("other", Route("/", **conditions(query={"b": True}))),
        ("two", Route("/", **conditions(headers={"x-a": "1"}, cookies={"c": True}))),
    )
    a, c = (b"x-a", b"1"), (b"cookie", b"c=")
    assert taken(routes) == "plain"
    assert taken(routes, headers=[a]) == "one"
    assert taken(routes, query=b"?b") == "other"
    assert taken(routes, headers=[a], query=b"?b") == "one"
    assert taken(routes, headers=[a, c], query=b"?b") == "two"


def test_conditions_that_do_not_hold_lead_on() -> None:
    """A less specific path is tried, as for a method that does not match."""
    routes = router(("canary", Route("/a/b", **conditions(headers={"x-a": "1"}))), ("wide", Route("/a/:x")))
    assert taken(routes, b"/a/b") == "wide"
    assert taken(routes, b"/a/b", headers=[(b"x-a", b"1")]) == "canary"
    assert routes.allow(b"/a/b", headers=[]) == ()


def test_head_takes_the_route_of_get_under_its_conditions() -> None:
    """HEAD is asked where GET is, unless a route for HEAD itself has as many conditions."""
    routes = router(
        ("get", Route("/", methods=("GET",), **conditions(query={"v": "2"}))),
        ("head", Route("/", methods=("HEAD",))),
        ("plain", Route("/", methods=("GET",))),
    )
    assert taken(routes, method=b"HEAD", query=b"?v=2") == "get"
    assert taken(routes, method=b"HEAD") == "head"
    assert taken(routes) == "plain"


def test_all_methods_and_one_under_conditions() -> None:
    """A route for one method and a route for all are weighed by their conditions, too."""
    routes = router(("post", Route("/", methods=("POST",))), ("any", Route("/", **conditions(headers={"x-a": "1"}))))
    assert taken(routes, method=b"POST") == "post"
    assert taken(routes, method=b"POST", headers=[(b"x-a", b"1")]) == "any"
    assert taken(routes, method=b"PUT", headers=[(b"x-a", b"1")]) == "any"
    assert taken(routes, method=b"PUT") is None


def test_equal_conditions_clash() -> None:
    """Two routes that nothing tells apart are refused, in whatever order their conditions are written."""
    one, other = conditions(headers={"X-A": "1", "b": True}), conditions(headers={"B": True, "x-a": "1"})
    with pytest.raises(ValueError, match="same shape"):
        router(("one", Route("/", **one)), ("other", Route("/", **other)))
    router(("one", Route("/", hosts=("a.test",), **one)), ("other", Route("/", hosts=("b.test",), **other)))


@pytest.mark.parametrize(
    "text",
    ["(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*a){20}", "(x+x+)+y", "((a?){15}){15}a*", "(a*)*(b*)*c", "(?:a?){100}a{100}"],
)
def test_expressions_do_not_explode(text: str) -> None:
    """Expressions that backtrack for ever in other engines are done with the longest value (this would not end)."""
    matches = expression(text)
    assert matches(b"a" * 30000 + b"!") is None


# Strict routes


STRICT = router(
    ("card", Route("/c/:id", methods=("GET",), strict_methods=True)),
    ("put", Route("/c/:id", methods=("PUT",))),
    ("new", Route("/c/new", methods=("POST",))),
    ("wide", Route("/*")),
)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        (b"GET", b"/c/1", "card"),
        (b"HEAD", b"/c/1", "card"),
        (b"PUT", b"/c/1", "put"),
        (b"DELETE", b"/c/1", None),
        (b"DELETE", b"/c/%31", None),
        (b"POST", b"/c/new", "new"),
        (b"GET", b"/c/new", "card"),
        (b"DELETE", b"/c/new", None),
        (b"DELETE", b"/c/1/", "wide"),
        (b"DELETE", b"/d", "wide"),
    ],
)
def test_a_strict_route_ends_the_search(method: bytes, path: bytes, route: str | None) -> None:
    """Another method than those of its path is 405, and does not fall through to a wider route."""
    assert taken(STRICT, path, method=method) == route


def test_a_strict_route_says_which_methods_there_are() -> None:
    """405 names the methods that have a route."""
    assert STRICT.allow(b"/c/1") == (b"GET", b"HEAD", b"PUT")
    assert STRICT.allow(b"/c/new") == (b"GET", b"HEAD", b"POST", b"PUT")


def test_a_strict_literal_route() -> None:
    """A path without parameters is found by another way, and ends the search as well."""
    routes = router(("one", Route("/one", methods=("GET",), strict_methods=True)), ("wide", Route("/*")))
    assert taken(routes, b"/one") == "one"
    assert taken(routes, b"/one", method=b"PUT") is None
    assert routes.allow(b"/one") == (b"GET", b"HEAD")


def test_a_strict_route_is_strict_under_its_conditions() -> None:
    """A route that does not match a request has no say in its methods."""
    held = conditions(headers={"x-a": "1"})
    routes = router(("one", Route("/:x", methods=("GET",), strict_methods=True, **held)), ("wide", Route("/*")))
    assert taken(routes, b"/a", method=b"PUT") == "wide"
    assert taken(routes, b"/a", method=b"PUT", headers=[(b"x-a", b"1")]) is None


# In words


def test_values_that_open_a_route_are_not_told() -> None:
    """Where its name tells of a secret; they count all the same, and two of them are two conditions."""
    opened = Route(
        "/a", **conditions(headers={"X-Key": "hunter2"}, query={"token": "~hunter2.*"}, cookies={"sid": "hunter2"})
    )
    other = Route("/a", **conditions(headers={"X-Key": "hunter3"}))
    routes = router(("b", opened), ("c", other), ("a", Route("/a")))
    told = str(routes.explain(b"GET", b"/a", b"", []))
    assert "hunter" not in told
    assert "header x-key is '…', query token matches '…', cookie sid is '…'" in told
    assert "route /a (all methods)" in told


def test_explanations() -> None:
    """Which host was looked for, and which conditions did not hold, is said."""
    routes = router(
        ("b", Route("/a", hosts=("a.test",), **conditions(headers={"X-A": "1", "X-B": False}, query={"v": "~2.*"}))),
        ("a", Route("/a", hosts=("a.test",))),
        ("c", Route("/c")),
    )
    assert str(routes.explain(b"GET", b"/a", b"A.test:80", [])) == (
        "GET A.test:80 /a: route /a (all methods)\n  more specific, but its conditions do not hold: /a (all methods): "
        "header x-a is '1', header x-b is absent, query v matches '2.*'"
    )
    assert str(routes.explain(b"GET", b"/a", b"b.test", [])) == (
        "GET b.test /a: 404, no route matches the path\n  no route has the segment 'a' after /\n"
        "  no route names this host: only routes without hosts were tried"
    )
