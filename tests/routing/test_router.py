from __future__ import annotations

from itertools import product
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.router import Router
from apigw.routing.trie import Entry

GET, POST, PUT, DELETE, HEAD = b"GET", b"POST", b"PUT", b"DELETE", b"HEAD"


def router(*routes: str) -> Router[str]:
    """``"GET,PUT /a/:b"`` or ``"/a/:b"`` for every method; a route's value is its text."""
    entries: list[Entry[str]] = []
    for route in routes:
        methods, _, path = route.rpartition(" ")
        entries.append(Entry(path, frozenset(methods.encode().split(b",")) if methods else None, route))
    return Router(entries)


def found(routes: Router[str], method: bytes, path: bytes) -> str | None:
    match = routes.match(method, path)
    return None if match is None else match.value


# Which route


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", b"/", True),
        ("/", b"/a", False),
        ("/a", b"/a", True),
        ("/a", b"/a/", False),
        ("/a/", b"/a/", True),
        ("/a/", b"/a", False),
        ("/a/:b", b"/a/x", True),
        ("/a/:b", b"/a/", False),
        ("/a/:b", b"/a", False),
        ("/a/:b", b"/a/x/", False),
        ("/a/:b/", b"/a/x/", True),
        ("/:a/b", b"/x/b", True),
        ("/files/*", b"/files", False),
        ("/files/*", b"/files/", True),
        ("/files/*", b"/files/a", True),
        ("/files/*", b"/files/a/b/", True),
        ("/files/*", b"/file/a", False),
        ("/:a/*", b"/x/", True),
        ("/:a/*", b"/x", False),
        ("/*", b"/", True),
        ("/*", b"/a/b", True),
        ("/A", b"/a", False),
        ("/caf\u00e9", b"/caf%C3%A9", True),
        ("/caf\u00e9", b"/caf%c3%a9", True),
        ("/caf%C3%A9", "/caf\u00e9".encode(), True),
        ("/api", b"/%61p%69", True),
        ("/a%20b", b"/a%20b", True),
        ("/%2A", b"/*", True),
        ("/%3Aid", b"/:id", True),
        ("/%3Aid", b"/x", False),
        ("/100%25", b"/100%25", True),
        ("/a%2541", b"/a%41", False),
        ("/a%2541", b"/aA", False),
        ("/a%2541", b"/a%2541", True),
        ("/users:export", b"/users:export", True),
        ("/a;v=1", b"/a;v=1", True),
    ],
)
def test_pattern(pattern: str, path: bytes, matches: bool) -> None:
    """A path would reach the wrong service, or none."""
    assert Pattern.parse(pattern).matches(path) is matches
    assert found(Router([Entry(pattern, None, pattern)]), GET, path) == (pattern if matches else None)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        (GET, b"/users/me", "GET /users/me"),
        (GET, b"/users/42", "GET,DELETE /users/:id"),
        (GET, b"/users/42/x", "/users/*"),
        (GET, b"/users/", "/users/*"),
        (DELETE, b"/users/me", "GET,DELETE /users/:id"),
        (PUT, b"/users/me", "/users/*"),
        (HEAD, b"/users/me", "GET /users/me"),
        (GET, b"/users/42/orders", "GET /users/:id/orders"),
        (GET, b"/users/me/orders", "GET /users/:id/orders"),
        (GET, b"/users/me/mail/7", "GET /users/me/mail/:id"),
        (GET, b"/users/me/mail", "/users/*"),
        (GET, b"/other", "GET /*"),
        (POST, b"/other", None),
    ],
)
def test_priority_goes_from_left_to_right_and_back(method: bytes, path: bytes, route: str | None) -> None:
    """A request that some route serves would be refused, or served by a less particular one."""
    routes = router(
        "GET /*",
        "/users/*",
        "GET,DELETE /users/:id",
        "GET /users/:id/orders",
        "GET /users/me",
        "GET /users/me/mail/:id",
    )
    assert found(routes, method, path) == route


def test_head_prefers_its_own_route() -> None:
    """A service that answers HEAD apart from GET would never be asked."""
    assert found(router("GET /a", "HEAD /a"), HEAD, b"/a") == "HEAD /a"
    assert found(router("HEAD /a", "GET /a"), HEAD, b"/a") == "HEAD /a"
    assert found(router("HEAD /a"), GET, b"/a") is None


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (b"/users/me", (b"DELETE", b"GET", b"HEAD", b"PATCH", b"POST")),
        (b"/users/42", (b"DELETE", b"PATCH", b"POST")),
        (b"/users/4/2", (b"PATCH",)),
        (b"/user", ()),
    ],
)
def test_allow_is_the_union_of_all_routes_that_match(path: bytes, allow: tuple[bytes, ...]) -> None:
    """A client would be told to use a method that is refused, or not told of one that works; or get 405 for 404."""
    routes = router("GET /users/me", "POST,DELETE /users/:id", "PATCH /users/*")
    assert routes.match(b"BREW", path) is None
    assert routes.allow(path) == allow


def test_no_routes() -> None:
    """A gateway without routes would not even answer 404."""
    routes = router()
    assert routes.match(GET, b"/") is None
    assert routes.allow(b"/a/b") == ()
    assert routes.explain(GET, b"/a").lines[0] == "GET /a: 404, no route matches the path"


def test_parameters_are_decoded_and_named() -> None:
    """The log would show another user's id than the one asked for."""
    pattern = Pattern.parse("/:tenant/users/:id/*")
    assert pattern.parameters(b"/a%20b/users/%C3%A9/x/y%21/") == {
        "tenant": b"a b",
        "id": "\u00e9".encode(),
        "*": b"x/y!/",
    }
    assert Pattern.parse("/a/*").parameters(b"/a/") == {"*": b""}
    assert Pattern.parse("/a").parameters(b"/a") == {}


# Patterns that cannot be


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "does not begin with /"),
        ("users", "does not begin with /"),
        ("*", "does not begin with /"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("/a//*", "empty segment"),
        ("/a/*/b", "not its last segment"),
        ("/a*", "not alone in its segment"),
        ("/**", "write * as the last segment"),
        ("/a/**/b", "write * as the last segment"),
        ("/users/{id}", "has {id}: a parameter is written :id"),
        ("/users/{id:[0-9]+}", "a parameter is written :id"),
        ("/u/<id>", "a parameter is written :id"),
        ("/u/<int:user_id>", "a parameter is written :user_id"),
        ("/posts/[slug]", "a parameter is written :slug"),
        ("/files/{name}.json", "a parameter is a whole segment, written :name"),
        ("/x/^[0-9]+$", "a regular expression: write :name"),
        ("/x/[0-9]+", "a regular expression: write :name"),
        ("/x/(.*)", "a regular expression: write :name"),
        ("/x/(a|b)", "a regular expression: write :name"),
        ("/:", "has a parameter that is not : and a name"),
        ("/:1", "has a parameter that is not : and a name"),
        ("/:a.b", "has a parameter that is not : and a name"),
        ("/:a*", "has a parameter that is not : and a name"),
        ("/:a/x/:a", "has the parameter :a twice"),
        ("/a?b=1", "a query (?)"),
        ("/a#b", "a fragment (#)"),
        ("/100%", "hexadecimal"),
        ("/%zz", "hexadecimal"),
        ("/a%2Fb", "slash"),
        ("/a%5cb", "backslash"),
        ("/a\\b", "backslash"),
        ("/a b", "white space (write %20)"),
        ("/%ff", "not UTF-8"),
        ("/a\nb", "control character"),
        ("/a%00", "control character"),
        ("/./a", ". or .. segment"),
        ("/a/..", ". or .. segment"),
        ("/a/%2e%2E/b", ". or .. segment"),
        ("/..;x/a", ". or .. segment"),
        ("/\ud800", "not Unicode"),
    ],
)
def test_a_pattern_that_no_request_can_match_is_refused(text: str, sentence: str) -> None:
    """A mistyped path would be accepted and its route never found."""
    with pytest.raises(ValueError) as raised:
        Pattern.parse(text)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["/$metadata", "/a$", "/%7Bid%7D", "/a+b", "/v1.0/", "/(x)", "/~me", "/a,b;c=1"])
def test_what_only_looks_like_another_notation_is_literal(text: str) -> None:
    """Characters that URLs do hold need no escaping."""
    assert Pattern.parse(text).matches(text.encode())


def test_a_router_names_the_pattern_that_is_wrong() -> None:
    """A bad pattern among a thousand is told by its text."""
    with pytest.raises(ValueError, match="the path '/a//b' has an empty segment"):
        Router([Entry("/a//b", None, 1)])


def test_routes_of_one_shape_with_a_common_method_clash() -> None:
    """Which of two routes gets a request would depend on their order in the files."""
    with pytest.raises(ValueError, match=r"same shape.*/a/:x \(GET\) and /a/:z \(GET, POST\)"):
        router("GET /a/:x", "POST /a/:y", "POST,GET /a/:z")
    for one, other in (("/a/*", "PUT /a/*"), ("PUT /b", "/%62"), ("/b", "/b")):
        with pytest.raises(ValueError, match="same shape"):
            router(one, other)
    router("GET /a/:x", "DELETE /a/:v", "/b", "/b/")


# Against a reference that knows no trie

Shape = list[str]
SEGMENTS = st.sampled_from(["a", "b", "%61", ":x", ":y"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    segments: Shape = draw(st.lists(SEGMENTS, max_size=4))
    named = [f":p{i}" if segment.startswith(":") else segment for i, segment in enumerate(segments)]
    return "/" + "/".join([*named, *draw(st.sampled_from([[], [""], ["*"]] if named else [[""], ["*"]]))])


PATHS = st.builds(
    lambda segments, slash: b"/" + b"/".join([*segments, *slash]) if segments else b"/",
    st.lists(st.sampled_from([b"a", b"b", b"c", b"%62", b"a%61"]), max_size=6),
    st.sampled_from([[], [b""]]),
)
METHODS = st.none() | st.frozensets(st.sampled_from([GET, POST, HEAD]), min_size=1)


def rank(pattern: str, path: bytes) -> tuple[int, ...] | None:
    """The priority with which ``pattern`` matches, segment by segment, or ``None``: SEMANTICS read literally."""
    wanted, given_ = pattern.split("/")[1:], path.split(b"/")[1:]
    priorities: list[int] = []
    for i, segment in enumerate(wanted):
        if segment == "*":
            return (*priorities, 2) if len(given_) > i else None
        if i >= len(given_):
            return None
        if segment.startswith(":"):
            if not given_[i]:
                return None
            priorities.append(1)
        elif unquote_to_bytes(segment) != unquote_to_bytes(given_[i]):
            return None
        else:
            priorities.append(0)
    return tuple(priorities) if len(wanted) == len(given_) else None


@settings(max_examples=300)
@given(st.lists(st.tuples(patterns(), METHODS), max_size=12), st.lists(PATHS, min_size=1, max_size=8))
def test_the_trie_finds_what_a_scan_of_all_routes_finds(
    drawn: list[tuple[str, frozenset[bytes] | None]], paths: list[bytes]
) -> None:
    """Some combination of routes would send a request to the wrong one."""
    entries: list[tuple[str, frozenset[bytes] | None, tuple[str, frozenset[bytes] | None]]] = []
    for pattern, methods in drawn:
        if not any(
            Pattern.parse(pattern).shape == Pattern.parse(other).shape
            and (methods is None or others is None or methods & others)
            for other, others, _ in entries
        ):
            entries.append((pattern, methods, (pattern, methods)))
    routes = Router(Entry(*entry) for entry in entries)
    for path, method in product(paths, [GET, HEAD, POST, PUT]):
        matching = []
        for pattern, methods, value in entries:
            priority = rank(pattern, path)
            assert Pattern.parse(pattern).matches(path) is (priority is not None)
            if priority is None:
                continue
            if methods is None or method in methods:
                matching.append((priority, 0, value))
            elif method == HEAD and GET in methods:
                matching.append((priority, 1, value))
        match = routes.match(method, path)
        assert (match and match.value) == (min(matching, key=lambda found: found[:2])[2] if matching else None)
        if match is None:
            served = [methods for pattern, methods, _ in entries if rank(str(pattern), path) is not None and methods]
            union = frozenset[bytes]().union(*served)
            assert routes.allow(path) == tuple(sorted(union | ({HEAD} if GET in union else frozenset())))
        explanation = routes.explain(method, path)
        assert explanation.match is match


ALL_PATTERNS = [
    Pattern.parse("/" + "/".join([*(f":p{i}" if s == ":" else s for i, s in enumerate(segments)), *end]))
    for length in range(4)
    for segments in product(["a", "b", ":"], repeat=length)
    for end in ([], [""], ["*"])
    if segments or end
]
ALL_PATHS = [
    b"/" + b"/".join([*segments, *end])
    for length in range(5)
    for segments in product([b"a", b"b", b"c"], repeat=length)
    for end in ([], [b""])
    if segments or end
]


def test_overlaps_says_what_trying_every_path_says() -> None:
    """A limit would be skipped on a route that it covers, or charged on one that it does not."""
    matched = {pattern: {path for path in ALL_PATHS if pattern.matches(path)} for pattern in ALL_PATTERNS}
    for limit, route in product(ALL_PATTERNS, repeat=2):
        ours, theirs = matched[limit], matched[route]
        expected = "never" if ours.isdisjoint(theirs) else "always" if theirs <= ours else "sometimes"
        assert overlaps(limit, route) == expected, (limit, route)


@pytest.mark.parametrize(
    ("limit", "route", "answer"),
    [
        ("/api/v1/*", "/api/v1/users/:id", "always"),
        ("/api/v1/search", "/api/v1/*", "sometimes"),
        ("/api/v1/search", "/api/v1/search", "always"),
        ("/api/v1/:x", "/api/v1/search", "always"),
        ("/api/v1/users/me", "/api/v1/users/:id", "sometimes"),
        ("/api/v1/*", "/api/v1", "never"),
        ("/api/v2/*", "/api/v1/*", "never"),
        ("/*", "/*", "always"),
    ],
)
def test_overlaps_by_example(limit: str, route: str, answer: str) -> None:
    """A limit would apply to the wrong routes."""
    assert overlaps(Pattern.parse(limit), Pattern.parse(route)) == answer


# Hostile sizes


def test_going_back_is_not_exponential() -> None:
    """One request that fits half of every route would hold the gateway for ever (this would not end)."""
    depth = 40
    entries: list[Entry[int]] = []
    for i in range(depth):
        one = ["a"] * i + [":x"] + ["a"] * (depth - i - 1)
        many = [f":x{j}" for j in range(i)] + ["a"] * (depth - i)
        for segments in ([*one, f"end{i}"], [*many, "end"]):
            entries.append(Entry("/" + "/".join(segments), None, i))
    routes = Router(entries)
    assert routes.match(GET, b"/a" * depth + b"/nowhere") is None
    assert routes.match(GET, b"/a" * depth + b"/end") is not None
    path = b"/a" * 7 + b"/x" + b"/a" * (depth - 8) + b"/end7"
    assert routes.explain(GET, path).parameters == {"x": b"x"}


def test_paths_and_patterns_of_absurd_length() -> None:
    """A path of thousands of segments would end in a traceback instead of an answer."""
    deep = "/a" * 5000 + "/:x"
    routes = router(deep, "/b/*", "/c/:d")
    assert found(routes, GET, b"/a" * 5000 + b"/1") == deep
    assert found(routes, GET, b"/a" * 4999) is None
    assert found(routes, GET, b"/b" + b"/x" * 16000) == "/b/*"
    assert found(routes, GET, b"/b" + b"/%41" * 8000) == "/b/*"
    assert found(routes, GET, b"/c/" + b"%41" * 10000) == "/c/:d"
    assert Pattern.parse("/c/:d").parameters(b"/c/" + b"%41" * 10000) == {"d": b"A" * 10000}
    assert "404" in str(routes.explain(GET, b"/a" * 16000))


# In words


def explained(routes: Router[str], method: bytes, path: bytes) -> str:
    return str(routes.explain(method, path))


def test_explanations() -> None:
    """An operator who asks why a request goes where it goes would be told nothing, or something untrue."""
    routes = router("GET /users/me", "GET,DELETE /users/:id", "POST /users", "/files/*")
    assert explained(routes, GET, b"/users/me") == "GET /users/me: route /users/me (GET)"
    assert explained(routes, DELETE, b"/users/me") == (
        "DELETE /users/me: route /users/:id (DELETE, GET)\n"
        "  id = 'me'\n"
        "  more specific, but not for this method: /users/me (GET)"
    )
    assert explained(routes, PUT, b"/users/42") == (
        "PUT /users/42: 405, allowed methods: DELETE, GET, HEAD\n  /users/:id (DELETE, GET) matches the path"
    )
    assert explained(routes, POST, b"/users/") == (
        "POST /users/: 404, no route matches the path\n"
        "  /users would match: a path with a trailing slash is a different path"
    )
    assert explained(routes, GET, b"/users/42/orders/7") == (
        "GET /users/42/orders/7: 404, no route matches the path\n  no route has the segment 'orders' after /users/42"
    )
    assert explained(routes, GET, b"/user") == (
        "GET /user: 404, no route matches the path\n  no route has the segment 'user' after /"
    )
    assert explained(routes, GET, b"/files") == (
        "GET /files: 404, no route matches the path\n"
        "  /files/ would match: a path with a trailing slash is a different path"
    )
    assert explained(routes, GET, b"/files/a/b") == "GET /files/a/b: route /files/* (all methods)\n  * = 'a/b'"
    assert explained(router("/a/b/c"), GET, b"/a/b") == (
        "GET /a/b: 404, no route matches the path\n  routes continue below this path, but none ends here"
    )


def test_an_explanation_is_one_record_whatever_was_sent() -> None:
    """A request could write lines of its own into the debug log."""
    routes = router("/users/:id")
    for path in (b"/users/a%0Ab%1b", b"/users/\x85\n", b"/n\nope", b"/users/%FF"):
        lines = routes.explain(b"GET", path).lines
        assert all(line.isprintable() for line in lines), lines
