"""Checks of routes: against each other, the services, and the reserved paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.rules import Rules
from apigw.config.schema import rule_at
from apigw.config.validate import MAX_HINTS, shown
from apigw.routing.pattern import Pattern, overlaps


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
    rivals = _Rivals(document)
    known = _Services(document)
    names = _Names(document)
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        known.check((*path, "service"), route.get("service"))
        _repeated(document, (*path, "methods"), route.get("methods"))
        _answered(document, path, route)
        names.check((*path, "name"), route.get("name"))
        for at, text in paths_of(document, path):
            pattern = Pattern.parse(text)
            rivals.check(path, at, pattern, route)
            for taken, literal in reserved:
                if _shadows(pattern, literal):
                    document.report(at, f"conflicts with the reserved path {taken}, which the gateway answers itself")
            prefix = route.get("strip_prefix")
            if prefix is not None and not pattern.begins_with(Pattern.parse(prefix)):
                shown_path = shown(document, at, text)
                document.report((*path, "strip_prefix"), f"is not a prefix of the route's path {shown_path}")


ANSWERS = ("service", "split", "redirect", "respond")
"""Keys of a route that say who answers; a route has exactly one."""


def _answered(document: Document, path: Path, route: dict[str, Any]) -> None:
    known = [key for key in ANSWERS if rule_at(document.schema, (*path, key)) is not None]
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


class _Services:
    """Whether services exist; says nothing where the one that is missing may stand in a file that was not read."""

    def __init__(self, document: Document) -> None:
        services = document.tree.get("services", {})
        self._document = document
        self._names: Any = services if isinstance(services, dict) and document.whole else None
        self._hints = 0

    def check(self, path: Path, name: str | None) -> None:
        if name is None or self._names is None or name in self._names:
            return
        self._hints += 1
        near = hint(name, self._names) if self._hints <= MAX_HINTS else ""
        self._document.report(path, f"{shown(self._document, path, name)} is not the name of a service{near}")


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


class _Rivals:
    """Routes of one shape with a common method: which of them was meant cannot be told."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._held: dict[object, dict[str | None, Path]] = {}

    def check(self, path: Path, at: Path, pattern: Pattern, route: dict[str, Any]) -> None:
        if not self._document.is_sound((*path, "methods")):
            return
        methods = route.get("methods")
        held = self._held.setdefault(pattern.shape, {})
        rival = self._rival(held, methods)
        for method in methods or [None]:
            held.setdefault(method, at)
        if rival is not None:
            theirs = self._document.get(*rival[:2], "methods")
            common = ", ".join(each for each in methods or theirs or () if each in (theirs or methods or ()))
            origin = self._document.place(rival)
            sentence = f"has the same shape as the path at {origin}, and both routes serve {common or 'all methods'}"
            self._document.report(at, sentence)

    def _rival(self, held: dict[str | None, Path], methods: list[str] | None) -> Path | None:
        if methods is None:
            return next(iter(held.values()), None)
        return next((held[each] for each in (None, *methods) if each in held), None)


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


RULES = Rules(
    forms={"pattern": Pattern.parse, "prefix": prefix},
    called={"pattern": "path pattern", "prefix": "path of literal segments"},
    checks=(routes,),
)
