"""Warnings about routes as they work together: what is never reached, and what takes a request that a stronger route
does not.

Each route is tried with paths in which parameters stand for any segment, so the time grows with the number of routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote_from_bytes

from apigw.config.model import Condition, Config, Route
from apigw.config.problem import Problem
from apigw.config.rules import Rules
from apigw.routing.configured import entry_of
from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.rivals import MAX_COMPARED
from apigw.routing.router import Router

ANY = b"ANY"
"""Stands for every method that no route names."""
MOST = 20
"""Warnings that are told."""
_SEGMENT = "apigw-any-segment"

_Numbered = tuple[int, Route]


def sample(pattern: Pattern, rest: str = _SEGMENT) -> bytes:
    """A path that ``pattern`` matches, and no literal that anybody would write in place of its parameters."""
    segments = [_SEGMENT if segment is None else quote_from_bytes(segment, safe="") for segment in pattern.segments]
    return "/".join(["", *segments, *([rest] if pattern.wildcard else [])]).encode("ascii")


def review(config: Config, rules: Rules) -> Iterator[Problem]:
    """The warnings for a configuration."""
    reviewer = _Reviewer(config, rules)
    count = 0
    for index, route in enumerate(config.routes):
        sentence = reviewer.unreachable(index, route) or reviewer.let_fall(index, route)
        if sentence is not None:
            count += 1
            if count <= MOST:
                path = ("routes", index, "path")
                yield Problem(sentence, path, config.origins.get(path))
    if count > MOST:
        yield Problem(f"{count - MOST} more routes have such warnings", ("routes",), config.origins.get(("routes",)))


class _Reviewer:
    def __init__(self, config: Config, rules: Rules) -> None:
        self._config = config
        self._weaker = [weaker(config) for weaker in rules.weaker]
        self._router: Router[_Numbered] = Router(entry_of(route, (i, route)) for i, route in enumerate(config.routes))
        self._methods = sorted({method for route in config.routes for method in route.methods or ()})
        self._keeping = [(i, route) for i, route in enumerate(config.routes) if route.encoded_slashes == "keep"]
        self._same: dict[object, list[_Numbered]] = {}
        for index, route in enumerate(config.routes):
            if _conditions(route):
                self._same.setdefault(Pattern.parse(route.path).shape, []).append((index, route))

    def unreachable(self, index: int, route: Route) -> str | None:
        pattern = Pattern.parse(route.path)
        if _conditions(route):
            for other, earlier in self._same[pattern.shape][:MAX_COMPARED]:
                if other < index and _covers(earlier, route):
                    return f"can never be reached: the route at {self._place(other)} takes all its requests"
            return None
        rests = ("", _SEGMENT, f"{_SEGMENT}/{_SEGMENT}") if pattern.wildcard else ("",)
        taken: Route | None = None
        for path in [sample(pattern, rest) for rest in rests]:
            for host in _samples_of(route.hosts):
                for method in [name.encode("ascii") for name in route.methods or ()] or [ANY]:
                    match = self._router.match(method, path, host, [])
                    if match is None or match.value[0] == index:
                        return None
                    taken = match.value[1]
        return None if taken is None else f"can never be reached: other routes, such as {taken.name}, take its requests"

    def let_fall(self, index: int, route: Route) -> str | None:
        """Requests for the path of a route that a weaker one takes: by another method, another slash at the end, an
        encoded slash, or without what its conditions demand, which is the client's choice."""
        pattern = Pattern.parse(route.path)
        path = sample(pattern)
        tried: list[tuple[str, bytes, Sequence[str]]] = []
        if route.methods is not None:
            others = [method for method in self._methods if method not in route.methods]
            if "GET" in route.methods and "HEAD" in others:
                others.remove("HEAD")
            tried.append(("{method}", path, [*others, ANY.decode()]))
        if not pattern.wildcard and path != b"/":
            slash = path[:-1] if path.endswith(b"/") else path + b"/"
            shown = route.path[:-1] if path.endswith(b"/") else route.path + "/"
            tried.append((shown, slash, route.methods or [ANY.decode()]))
        for host in _samples_of(route.hosts):
            for what, asked, methods in tried:
                for method in methods:
                    match = self._router.match(method.encode("ascii"), asked, host, [])
                    if match is None or match.pattern.shape == pattern.shape:
                        continue
                    less = self._less(route, match.value[1], asked)
                    if less is not None:
                        named = "any other method" if method == ANY.decode() else method
                        remedy = "write strict_methods: true" if what == "{method}" else "write a route for it"
                        place = self._place(match.value[0])
                        return f"{what.format(method=named)} is taken by the route at {place}, which {less}: {remedy}"
        if _conditions(route):
            for host in _samples_of(route.hosts):
                for method in route.methods or [ANY.decode()]:
                    match = self._router.match(method.encode("ascii"), path, host, [])
                    less = None if match is None or match.value[0] == index else self._less(route, match.value[1], path)
                    if match is not None and less is not None:
                        place = self._place(match.value[0])
                        who = f"the route at {place}, which {less}"
                        return f"a request that does not meet its conditions is taken by {who}"
        for other, keeping in self._keeping:
            wide = Pattern.parse(keeping.path)
            if other != index and wide.shape != pattern.shape and overlaps(wide, pattern) != "never":
                less = self._less(route, keeping, sample(wide))
                if less is not None and set(keeping.hosts) == set(route.hosts):
                    place = self._place(other)
                    return f"with an encoded slash is taken by the route at {place}, which {less}"
        return None

    def _less(self, route: Route, other: Route, path: bytes) -> str | None:
        return next(filter(None, (less(route, other, path) for less in self._weaker)), None)

    def _place(self, index: int) -> str:
        return str(self._config.origins.get(("routes", index, "path"), f"routes[{index}]"))


def _samples_of(hosts: tuple[str, ...]) -> list[bytes]:
    return [host.replace("*", _SEGMENT).encode("ascii") for host in hosts] or [b""]


def _conditions(route: Route) -> dict[tuple[str, str], Condition]:
    return {
        (kind, each.name.lower() if kind == "headers" else each.name): each
        for kind, held in (("headers", route.headers), ("query", route.query), ("cookies", route.cookies))
        for each in held
    }


def _covers(earlier: Route, route: Route) -> bool:
    """Whether ``earlier``, of the same shape and with as many conditions, matches all that ``route`` matches."""
    if earlier.methods is not None and not set(route.methods or ("",)) <= set(earlier.methods):
        return False
    if (
        set(route.hosts) - set(earlier.hosts)
        or (earlier.hosts and not route.hosts)
        or (route.hosts and not earlier.hosts)
    ):
        return False
    wanted, given = _conditions(earlier), _conditions(route)
    return len(wanted) == len(given) and all(
        key in given and _implied(each, given[key]) for key, each in wanted.items()
    )


def _implied(wanted: Condition, given: Condition) -> bool:
    if wanted.present is True:
        return given.present is not False
    return (wanted.equal, wanted.present, wanted.regex) == (given.equal, given.present, given.regex)
