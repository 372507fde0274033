# Compiled: see docs/decisions/compiled.md
"""The router: which route a request takes, by host, path and method, and conditions.

The most specific host that any route names is chosen first, and only the routes of this host are tried; those without
hosts serve what nobody names. Then a trie of patterns decides (``trie``). The time of a look-up does not depend on the
number of routes.

Paths are as sent, and have been validated: they begin with a slash, and have no dot segment and no malformed escape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

from apigw.routing.conditions import Pairs
from apigw.routing.hosts import Hosts
from apigw.routing.trie import Entry, Match, Trie, listed, shown

T = TypeVar("T")


@frozen(eq=False)
class Explanation(Generic[T]):
    """The reasons for a decision. ``lines`` are for people; ``allow`` is not empty if the answer is 405."""

    match: Match[T] | None
    parameters: dict[str, bytes]
    allow: tuple[bytes, ...]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Router(Generic[T]):
    """An immutable set of routes. Raises ``ValueError`` for a bad pattern and for two routes that clash: with a host,
    the shape of a path, a method and all conditions in common.

    Where a request is asked for, ``authority`` is its host as sent, with its port, and empty if it has none;
    ``headers`` have names in lower case; ``query`` has its ``?``. With None for ``headers`` all conditions hold.
    """

    def __init__(self, entries: Iterable[Entry[T]] = ()) -> None:
        self._unnamed: Trie[T] = Trie()
        self._hosts: Hosts[Trie[T]] = Hosts()
        self._any_host = True
        self._count = 0
        self.keeps = 0
        """Which oddities of paths some route keeps: ``Entry.keeps`` of all."""
        for _ in self.build(entries):
            pass

    def build(self, entries: Iterable[Entry[T]]) -> Iterator[None]:
        """Add routes to an empty router, one after each yield: what ``__init__`` does at once. Raises the same."""
        for entry in entries:
            match = Match(entry, self._count)
            for trie in self._tries(entry.hosts):
                trie.add(match)
            self._count += 1
            self.keeps |= match.keeps
            yield
        self._any_host = not len(self._hosts)
        for trie in (self._unnamed, *self._hosts.values()):
            yield from trie.settle()

    def _tries(self, hosts: tuple[str, ...]) -> list[Trie[T]]:
        if not hosts:
            return [self._unnamed]
        tries: list[Trie[T]] = []
        for host in hosts:
            trie = self._hosts.get(host)
            if trie is None:
                trie = Trie()
                self._hosts.set(host, trie)
            tries.append(trie)
        return tries

    def __len__(self) -> int:
        """The number of routes."""
        return self._count

    def nodes(self) -> Iterator[object]:
        """All nodes of the tries, each before those below it."""
        for trie in (self._unnamed, *self._hosts.values()):
            yield from trie.nodes()

    def names(self, authority: bytes) -> bool:
        """Whether some route names the host."""
        return not self._any_host and self._hosts.find(authority) is not None

    def match(
        self, method: bytes, path: bytes, authority: bytes = b"", headers: Pairs | None = None, query: bytes = b""
    ) -> Match[T] | None:
        """The route for a request, or ``None``. Then ``allow`` decides between 405 and 404."""
        if self._any_host:
            return self._unnamed.match(method, path, headers, query)
        return self._of(authority).match(method, path, headers, query)

    def _of(self, authority: bytes) -> Trie[T]:
        found = self._hosts.find(authority)
        return self._unnamed if found is None else found

    def allow(
        self, path: bytes, authority: bytes = b"", headers: Pairs | None = None, query: bytes = b""
    ) -> tuple[bytes, ...]:
        """The methods, sorted, of all routes that match; empty for a 404 (RFC 9110 §10.2.1).

        For a path that ``match`` did not find, so no route for all methods matches it.
        """
        trie = self._of(authority)
        return tuple([method for method in trie.methods if trie.match(method, path, headers, query) is not None])

    def candidates(self, method: bytes, path: bytes, authority: bytes = b"") -> Iterator[Match[T]]:
        """All routes that a request may take, whatever its headers and query, the best first."""
        return self._of(authority).candidates(method, path)

    def explain(
        self, method: bytes, path: bytes, authority: bytes = b"", headers: Pairs | None = None, query: bytes = b""
    ) -> Explanation[T]:
        """The decision of ``match``, with its reasons, for the debug log and ``apigw routes``."""
        trie = self._of(authority)
        match = trie.match(method, path, headers, query)
        at = f"{shown(authority)} " if authority else ""
        asked = f"{shown(method)} {at}{shown(path)}"
        passed: list[str] = []
        for each in trie.candidates(method, path):
            if each is match:
                break
            passed.append(f"  more specific, but its conditions do not hold: {each}: {each.conditions}")
        found = [trie.match(other, path, headers, query) for other in trie.methods]
        others = [other for other in dict.fromkeys(found) if other is not None and other is not match]
        if match is None:
            allow = self.allow(path, authority, headers, query)
            verdict = f"405, allowed methods: {listed(allow)}" if allow else "404, no route matches the path"
            reasons = [f"  {other} matches the path" for other in others] + passed
            if not reasons:
                reasons = [f"  {reason}" for reason in trie.misses(method, path)]
            if trie is self._unnamed and not self._any_host:
                reasons.append("  no route names this host: only routes without hosts were tried")
            return Explanation(None, {}, allow, (f"{asked}: {verdict}", *reasons))
        parameters = match.pattern.parameters(path)
        better = [other for other in others if other.pattern.rank < match.pattern.rank]
        lines = [f"{asked}: route {match}"]
        lines += [f"  {name} = '{shown(value)}'" for name, value in parameters.items()]
        lines += [f"  more specific, but not for this method: {other}" for other in better]
        return Explanation(match, parameters, (), (*lines, *passed))
