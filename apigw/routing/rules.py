"""Checks of routes: against each other, the services, and the reserved paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from apigw.config import addresses
from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Origin, Path
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.rules import Rules
from apigw.config.schema import rule_at
from apigw.config.validate import MAX_HINTS, shown
from apigw.routing.conditions import MOST, expression
from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.review import review
from apigw.routing.rivals import KINDS, Rivals

# fmt: off
NOT_SEEN = frozenset({
    "connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})
# fmt: on
"""Headers of the connection and the framing."""
GATEWAYS_OWN = frozenset({"x-user-id", "x-user-roles", "x-auth-provider"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def prefix(text: str) -> None:
    """Check a path prefix for ``strip_prefix``: literal segments only."""
    pattern = Pattern.parse(text)
    if pattern.segments[-1:] == (b"",):
        raise ValueError("ends in a slash: write only the segments that are to go")
    if pattern.wildcard or None in pattern.segments:
        raise ValueError("has a parameter or a *: only literal segments can be cut off")


def routes(document: Document, files: Files) -> None:
    """Reports unknown services, routes of the same shape, conflicts with reserved paths, and wrong prefixes."""
    reserved = [(path, Pattern.parse(path)) for path in document.reserved]
    rivals = Rivals(document)
    known = KnownServices(document)
    names = _Names(document)
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        known.check((*path, "service"), route.get("service"))
        _repeated(document, (*path, "methods"), route.get("methods"))
        _answered(document, path, route)
        names.check((*path, "name"), route.get("name"))
        conditions(document, path)
        hosts = _hosts(document, path)
        for at, text in paths_of(document, path):
            pattern = Pattern.parse(text)
            if document.is_sound((*path, "hosts")):
                rivals.check(path, at, pattern, hosts)
            _oddities(document, path, at, pattern)
            for taken, literal in reserved if route.get("hosts") is None else ():
                if _shadows(pattern, literal):
                    document.report(at, f"conflicts with the reserved path {taken}, which the gateway answers itself")
            prefix = route.get("strip_prefix")
            if prefix is not None and not pattern.begins_with(Pattern.parse(prefix)):
                shown_path = shown(document, at, text)
                document.report((*path, "strip_prefix"), f"is not a prefix of the route's path {shown_path}")


def _answered(document: Document, path: Path, route: dict[str, Any]) -> None:
    """A route has one key that says who answers."""
    rules = rule_at(document.schema, path) or {}
    known = [key for key, rule in rules.get("schema", {}).items() if rule.get("meta", {}).get("answers")]
    if not all(document.is_sound((*path, key)) for key in known):
        return
    given = [key for key in known if route.get(key) is not None]
    if not given:
        document.report((*path, "service"), f"is missing{_beside(known)}", document.place(path))
    for key in given[1:]:
        document.report((*path, key), f"is given beside {given[0]}: only one can answer", document.key((*path, key)))


def _beside(known: Sequence[str]) -> str:
    return f", and so are {' and '.join(known[1:])}: a route needs one of them" if len(known) > 1 else ""


def _shadows(pattern: Pattern, reserved: Pattern) -> bool:
    """Reserved paths come first, so a pattern that begins with a parameter or a ``*`` takes nothing from them.

    One that begins with ``/health`` was meant for something that the gateway does not do.
    """
    if pattern.segments[:1] != reserved.segments[:1]:
        return False
    return len(reserved.segments) == 1 or overlaps(pattern, reserved) != "never"


class KnownServices:
    """Whether services exist; says nothing where the one that is missing may stand in a file that was not read."""

    def __init__(self, document: Document) -> None:
        services = document.tree.get("services", {})
        self._document = document
        self._names: Any = services if isinstance(services, dict) and document.whole else None
        self._hints = 0

    def check(self, path: Path, name: str | None, at: Origin | None = None) -> None:
        if name is None or self._names is None or name in self._names:
            return
        self._hints += 1
        near = hint(name, self._names) if self._hints <= MAX_HINTS else ""
        said = shown(self._document, path if at is None else (), name)
        self._document.report(path, f"{said} is not the name of a service{near}", at)


class _Names:
    """Names that two routes were given."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._held: dict[str, Path] = {}

    def check(self, path: Path, name: str | None) -> None:
        if name is None:
            return
        first = self._held.setdefault(name, path)
        if first != path:
            theirs = self._document.place(first)
            self._document.report(path, f"{shown(self._document, path, name)} is the name of the route at {theirs} too")


def _hosts(document: Document, route: Path) -> list[str]:
    """The hosts of a route; each once."""
    seen: dict[str, Path] = {}
    for at, text in document.entries(*route, "hosts"):
        host = addresses.route_host(text)
        if seen.setdefault(host, at) != at:
            document.report(at, f"{shown(document, at, text)} is given twice")
    return list(seen)


def _oddities(document: Document, route: Path, at: Path, pattern: Pattern) -> None:
    for key in ("encoded_slashes", "empty_segments"):
        if document.get(*route, key) == "keep" and pattern.segments[:1] in ((), (None,), (b"",)):
            path = shown(document, at, pattern.text)
            sentence = f"needs a path that begins with a literal segment, and {path} does not"
            document.report((*route, key), sentence, document.key((*route, key)))


def conditions(document: Document, route: Path) -> None:
    """Reports conditions of the map at ``route`` that are none, or too many."""
    count = 0
    for kind in KINDS:
        seen: dict[str, Path] = {}
        for at, condition in document.entries(*route, kind):
            count += 1
            name = str(at[-1])
            said = misnamed(kind, name)
            if said is not None:
                document.report(at, said, document.key(at))
            elif seen.setdefault(name.lower() if kind == "headers" else name, at) != at:
                document.report(at, "is given twice", document.key(at))
            if isinstance(condition, dict) and len(condition) != 1 and document.is_sound(at):
                document.report(at, "needs one of equal, present and regex", document.key(at))
    if count > MOST:
        document.report(route, f"has {count} conditions: {MOST} are allowed")


def misnamed(kind: str, name: str) -> str | None:
    """What is wrong with the name of a condition of this kind; None if nothing is."""
    if kind == "query":
        return None
    if not _TOKEN.fullmatch(name):
        return f"is not the name of a {'header' if kind == 'headers' else 'cookie'}"
    if kind == "cookies":
        return None
    if name.lower() == "host":
        return "is not compared here: write hosts"
    if name.lower() in NOT_SEEN:
        return "is about the connection, and not seen by routes"
    if name.lower() in GATEWAYS_OWN:
        return "is a name of the gateway's own: what clients send by it does not count"
    return None


def _repeated(document: Document, path: Path, methods: list[str] | None) -> None:
    for index, method in enumerate(methods or ()):
        if methods and method in methods[:index]:
            document.report((*path, index), f"{shown(document, (), method)} is given twice")


class Patterns:
    """A trie of patterns, to test quickly whether another pattern overlaps with any of them."""

    _END, _REST = "end", "rest"

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._root: dict[Any, Any] = {}
        for pattern in patterns:
            node = self._root
            for part in self._parts(pattern):
                node = node.setdefault(part, {})
            node[self._END] = {}

    def overlap(self, pattern: Pattern) -> bool:
        """Whether some path matches ``pattern`` and one of these. Visits each node at most once."""
        return self._overlap(self._root, self._parts(pattern), 0)

    def _parts(self, pattern: Pattern) -> tuple[bytes | str | None, ...]:
        return (*pattern.segments, self._REST) if pattern.wildcard else pattern.segments

    def _overlap(self, node: dict[Any, Any], parts: tuple[bytes | str | None, ...], position: int) -> bool:
        if position == len(parts):
            return self._END in node
        if self._REST in node:
            return True
        part = parts[position]
        if part == self._REST:
            return any(key != self._END for key in node)
        if part is None:
            nodes = [child for key, child in node.items() if key not in (self._END, b"")]
        else:
            nodes = [node[key] for key in ((part,) if part == b"" else (part, None)) if key in node]
        return any(self._overlap(child, parts, position + 1) for child in nodes)


def _value(text: str) -> None:
    """Any text."""


RULES = Rules(
    forms={"pattern": Pattern.parse, "prefix": prefix, "value": _value, "expression": expression},
    called={
        "pattern": "path pattern",
        "prefix": "path of literal segments",
        "value": "text",
        "expression": "expression of RE2",
    },
    checks=(routes,),
    reviews=(review,),
)
