# Compiled: see docs/decisions/compiled.md
"""The router: a trie of patterns. The time of a look-up does not depend on the number of routes.

Paths are as sent, and have been validated: they begin with a slash, and have no empty segment but the last, no dot
segment, no encoded slash, and no malformed escape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from attrs import Factory, define, frozen

from apigw.routing.pattern import Pattern

T = TypeVar("T")

Entry = tuple[Pattern | str, frozenset[bytes] | None, T]
"""A pattern, its methods (``None`` for all), and the value to find."""

Shapes = dict[object, list[tuple[frozenset[bytes] | None, T]]]
"""Methods and values of routes, by their shape."""


@frozen(eq=False)
class Match(Generic[T]):
    """The route that was found. ``methods`` are as configured; ``pattern.parameters(path)`` has the parameters."""

    value: T
    pattern: Pattern
    methods: frozenset[bytes] | None

    def __str__(self) -> str:
        return f"{self.pattern} ({_listed(self.methods or ()) or 'all methods'})"


@frozen(eq=False)
class Explanation(Generic[T]):
    """The reasons for a decision. ``lines`` are for people; ``allow`` is not empty if the answer is 405."""

    match: Match[T] | None
    parameters: dict[str, bytes]
    allow: tuple[bytes, ...]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


@define(eq=False)
class _Node(Generic[T]):
    """What may follow a prefix; where a pattern ends, the routes ``served`` by method, or by ``every`` method."""

    literals: dict[bytes, _Node[T]] = Factory(dict)
    parameter: _Node[T] | None = None
    rest: _Node[T] | None = None
    served: dict[bytes, Match[T]] = Factory(dict)
    every: Match[T] | None = None


class Router(Generic[T]):
    """An immutable set of routes. Raises ``ValueError`` for a bad pattern and for two routes that clash.

    Segment by segment from the left, a literal is preferred to a parameter, and that to the rest; with backtracking if
    path or method do not match in the end. A look-up visits no node of the trie twice. So backtracking takes at most as
    many steps as the configuration has matching prefixes, whatever the request contains.
    """

    def __init__(self, entries: Iterable[Entry[T]]) -> None:
        self._root: _Node[T] = _Node()
        self._whole: dict[bytes, _Node[T]] = {}
        self._methods: list[bytes] = []
        self._depth = 0
        self._longest = 0
        self._count = 0
        for _ in self.build(entries):
            pass

    def build(self, entries: Iterable[Entry[T]]) -> Iterator[None]:
        """Add routes to an empty router, one after each yield: what ``__init__`` does at once. Raises the same."""
        methods: set[bytes] = set()
        seen: Shapes[Match[T]] = {}
        for pattern, wanted, value in entries:
            match = Match(value, _parsed(pattern), wanted)
            first = _clash(seen, match.pattern, wanted, match)
            if first is not None:
                raise ValueError(f"two routes have the same shape and a method in common: {first} and {match}")
            self._add(match)
            self._count += 1
            methods |= wanted or frozenset()
            segments = match.pattern.segments
            self._depth = max(self._depth, len(segments))
            self._longest = max(self._longest, max((len(segment or b"") for segment in segments), default=0))
            yield
        while seen:  # at once, those of 10,000 routes are freed in some 2 ms
            seen.popitem()
            yield
        self._methods = sorted(methods | {b"HEAD"} if b"GET" in methods else methods)

    def __len__(self) -> int:
        """The number of routes."""
        return self._count

    def nodes(self) -> Iterator[object]:
        """All nodes of the trie, each before those below it."""
        pending = [self._root]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.literals.values())
            pending.extend([below for below in (node.parameter, node.rest) if below is not None])

    def _add(self, match: Match[T]) -> None:
        pattern, node = match.pattern, self._root
        literals = []
        for segment in pattern.segments:
            if segment is None:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
                literals.append(segment)
        if pattern.wildcard:
            node.rest = node.rest or _Node()
            node = node.rest
        elif len(literals) == len(pattern.segments) and not any(b"%" in literal for literal in literals):
            # With a percent sign of its own the decoded path would pass for somebody's encoded one.
            self._whole[b"/" + b"/".join(literals)] = node
        if match.methods is None:
            node.every = match
            return
        node.served.update(dict.fromkeys(match.methods, match))
        if b"GET" in node.served:
            node.served.setdefault(b"HEAD", node.served[b"GET"])

    def match(self, method: bytes, path: bytes) -> Match[T] | None:
        """The route for a request, or ``None``. Then ``allow(path)`` decides between 405 and 404."""
        # Most paths have no parameter: one look-up instead of a walk is 0.1 µs instead of 0.6.
        end = self._whole.get(path)
        if end is not None:
            found = end.served.get(method, end.every)
            if found is not None:
                return found
        # What lies deeper than any pattern is not worth cutting up.
        pieces = path.split(b"/", self._depth + 1)
        if path.find(b"%") >= 0:  # ``in`` first tries whether bytes are a number
            pieces = self._decoded(pieces)
        count = len(pieces)
        node, at = self._root, 1
        pending: list[tuple[_Node[T], int]] = []
        while True:
            if at == count:
                found = node.served.get(method, node.every)
                if found is not None:
                    return found
            else:
                piece = pieces[at]
                at += 1
                if node.rest is not None:
                    pending.append((node.rest, count))
                literal = node.literals.get(piece)
                parameter = node.parameter if piece else None
                if literal is not None:
                    if parameter is not None:
                        pending.append((parameter, at))
                    node = literal
                    continue
                if parameter is not None:
                    node = parameter
                    continue
            if not pending:
                return None
            node, at = pending.pop()

    def allow(self, path: bytes) -> tuple[bytes, ...]:
        """The methods, sorted, of all routes that match ``path``; empty for a 404 (RFC 9110 §10.2.1).

        For a path that ``match`` did not find, so no route for all methods matches it.
        """
        return tuple(method for method in self._methods if self.match(method, path) is not None)

    def explain(self, method: bytes, path: bytes) -> Explanation[T]:
        """The decision of ``match``, with its reasons, for the debug log and ``apigw routes``."""
        match = self.match(method, path)
        asked = f"{_shown(method)} {_shown(path)}"
        found = (self.match(other, path) for other in self._methods)
        others = [other for other in dict.fromkeys(found) if other is not None and other is not match]
        if match is None:
            allow = self.allow(path)
            reasons = [f"{other} matches the path" for other in others] or self._misses(method, path)
            verdict = f"405, allowed methods: {_listed(allow)}" if allow else "404, no route matches the path"
            return Explanation(None, {}, allow, (f"{asked}: {verdict}", *(f"  {reason}" for reason in reasons)))
        parameters = match.pattern.parameters(path)
        better = [other for other in others if _rank(other.pattern) < _rank(match.pattern)]
        lines = [f"{asked}: route {match}"]
        lines += [f"  {name} = '{_shown(value)}'" for name, value in parameters.items()]
        lines += [f"  more specific, but not for this method: {other}" for other in better]
        return Explanation(match, parameters, (), tuple(lines))

    def _misses(self, method: bytes, path: bytes) -> list[str]:
        other = path[:-1] if path.endswith(b"/") else path + b"/"
        if other and self.match(method, other) is not None:
            return [f"{_shown(other)} would match: a path with a trailing slash is a different path"]
        pieces = self._decoded(path.split(b"/", self._depth + 1))
        nodes, at = [self._root], 0
        while nodes and at + 1 < len(pieces):
            at += 1
            following = [node.literals.get(pieces[at]) for node in nodes]
            if pieces[at]:
                following += [node.parameter for node in nodes]
            nodes = [node for node in following if node is not None]
        if nodes:
            return ["routes continue below this path, but none ends here"]
        known, unknown = b"/".join(pieces[:at]) or b"/", pieces[at].partition(b"/")[0]
        return [f"no route has the segment '{_shown(unknown)}' after {_shown(known)}"]

    def _decoded(self, pieces: list[bytes]) -> list[bytes]:
        # A segment shrinks to a third at most: a longer one is no literal, and not worth decoding.
        longest = 3 * self._longest
        return [unquote_to_bytes(piece) if b"%" in piece and len(piece) <= longest else piece for piece in pieces]


def clashes(entries: Iterable[Entry[T]]) -> Iterator[tuple[T, T]]:
    """Pairs of values whose routes have the same shape and a common method; each later route is in one pair only."""
    seen: Shapes[T] = {}
    for pattern, methods, value in entries:
        other = _clash(seen, _parsed(pattern), methods, value)
        if other is not None:
            yield other, value


def _clash(seen: Shapes[T], pattern: Pattern, methods: frozenset[bytes] | None, value: T) -> T | None:
    """An earlier value with the same shape and a common method; without one, ``value`` is added to what was seen."""
    same_shape = seen.setdefault(pattern.shape, [])
    for others, other in same_shape:
        if methods is None or others is None or methods & others:
            return other
    same_shape.append((methods, value))
    return None


def _parsed(pattern: Pattern | str) -> Pattern:
    if isinstance(pattern, Pattern):
        return pattern
    try:
        return Pattern.parse(pattern)
    except ValueError as error:
        raise ValueError(f"the path {pattern!r} {error}") from None


def _rank(pattern: Pattern) -> tuple[int, ...]:
    return (*(1 if segment is None else 0 for segment in pattern.segments), *([2] if pattern.wildcard else []))


def _listed(methods: Iterable[bytes]) -> str:
    return ", ".join(map(_shown, sorted(methods)))


def _shown(text: bytes) -> str:
    """Text for one line of a log, whatever the bytes."""
    return repr(text.decode("utf-8", "backslashreplace"))[1:-1]
