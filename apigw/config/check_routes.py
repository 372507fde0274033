"""Whether routes and limits fit each other, the services, and the paths that the gateway answers itself."""

from __future__ import annotations

from typing import Any

from apigw.config import patterns
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import hint
from apigw.config.patterns import Pattern
from apigw.config.validate import MAX_HINTS, shown

RESERVED = ("/health", "/ready", "/metrics")
RESERVED_BY_OAUTH = ("/oauth/token", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server")


def routes(document: Document) -> None:
    """Services exist, shapes differ, reserved paths are left alone, and what is cut off is there to be cut."""
    reserved = _reserved(document)
    rivals = _Rivals(document)
    known = _Services(document)
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        known.check((*path, "service"), route.get("service"))
        _repeated(document, (*path, "methods"), route.get("methods"))
        _cors(document, (*path, "cors"))
        if "path" in route:
            pattern = patterns.parse(route["path"])
            rivals.check(path, pattern, route)
            for taken, literal in reserved:
                if _shadows(pattern, literal):
                    document.report((*path, "path"), f"would shadow {taken}, which the gateway answers itself")
            prefix = route.get("strip_prefix")
            if prefix is not None and not pattern.begins_with(patterns.parse(prefix)):
                shown_path = shown(document, (*path, "path"), route["path"])
                document.report((*path, "strip_prefix"), f"is not how the route's path {shown_path} begins")


def rate_limits(document: Document) -> None:
    """One limit for a pattern and scope. A pattern that no route meets is probably a slip, but harms nobody."""
    limits = [(path, limit) for path, limit in document.entries("rate_limits") if "endpoint" in limit]
    paths = (route.get("path") for _, route in document.entries("routes") if isinstance(route, dict))
    tree = patterns.PatternTree(patterns.parse(path) for path in paths if path is not None)
    seen: dict[tuple[tuple[str, ...], str], Path] = {}
    for path, limit in limits:
        pattern = patterns.parse(limit["endpoint"])
        at = (*path, "endpoint")
        if "scope" in limit:
            first = seen.setdefault((pattern.shape, limit["scope"]), at)
            if first != at:
                document.report(at, f"has the same endpoint and scope as the one at {document.place(first)}")
        if document.whole and not tree.meets(pattern):
            document.warn(at, f"{shown(document, at, limit['endpoint'])} matches no route")


def _reserved(document: Document) -> list[tuple[str, Pattern]]:
    auth = document.tree.get("auth")
    oauth = isinstance(auth, dict) and auth.get("oauth") is not None
    return [(path, patterns.parse(path)) for path in RESERVED + (RESERVED_BY_OAUTH if oauth else ())]


def _shadows(pattern: Pattern, reserved: Pattern) -> bool:
    """Reserved paths come first, so a pattern that begins with a parameter or a ``*`` takes nothing from them.

    One that begins with ``/health`` was meant for something that the gateway does not do.
    """
    if pattern.shape[0] != reserved.shape[0]:
        return False
    return len(reserved.shape) == 1 or pattern.matches(reserved)


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
        self._document.report(path, f"{shown(self._document, path, name)} is not a service{near}")


class _Rivals:
    """Routes of one shape with a common method: which of them was meant cannot be told."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._held: dict[tuple[str, ...], dict[str | None, Path]] = {}

    def check(self, path: Path, pattern: Pattern, route: dict[str, Any]) -> None:
        if not self._document.is_sound((*path, "methods")):
            return
        methods = route.get("methods")
        held = self._held.setdefault(pattern.shape, {})
        rival = self._rival(held, methods)
        for method in methods or [None]:
            held.setdefault(method, path)
        if rival is not None:
            theirs = self._document.get(*rival, "methods")
            common = ", ".join(each for each in methods or theirs or () if each in (theirs or methods or ()))
            origin = self._document.place((*rival, "path"))
            sentence = f"has the same shape as the one at {origin}, and {common or 'all methods'} in common with it"
            self._document.report((*path, "path"), sentence)

    def _rival(self, held: dict[str | None, Path], methods: list[str] | None) -> Path | None:
        if methods is None:
            return next(iter(held.values()), None)
        return next((held[each] for each in (None, *methods) if each in held), None)


def _repeated(document: Document, path: Path, methods: list[str] | None) -> None:
    for index, method in enumerate(methods or ()):
        if methods and method in methods[:index]:
            document.report((*path, index), f"{shown(document, (), method)} is given twice")


def _cors(document: Document, path: Path) -> None:
    cors = document.get(*path)
    if cors and "*" in cors["origins"]:
        if len(cors["origins"]) > 1:
            document.report((*path, "origins"), "holds * beside others: write * alone, or leave it out")
        if cors.get("credentials"):
            document.report((*path, "credentials"), "cannot be true with the origin *: name the origins")
