"""Checks of changes to requests and answers in the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.policy.transform import syntax
from apigw.policy.transform.model import HeaderRules, transform_of
from apigw.policy.transform.schema import KEYS
from apigw.policy.transform.template import place
from apigw.routing.pattern import Pattern
from apigw.wire.headers import HOP_BY_HOP, TOKEN

UNTOUCHED = HOP_BY_HOP | {b"content-length", b"expect", b"host", b"x-request-id"}
"""Fields of the connection and of framing, and those that the gateway writes from what it has parsed."""


def header_name(text: str) -> None:
    """The name of a header that a rule may change."""
    name = text.lower().encode()
    if TOKEN(name) is None:
        raise ValueError("is not the name of a header")
    if name == b"host":
        raise ValueError("is not for header rules: write rewrite.host")
    if name in UNTOUCHED:
        raise ValueError("is not for header rules: the gateway writes it itself")


def transform(document: Document, files: Files) -> None:
    """Reports braces that name no parameter of the route, names that rules may not touch, and what excludes itself."""
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        for key in ("request_headers", "response_headers"):
            # As written, because names can be judged where the values are wrong.
            _headers(document, (*path, key), document.tree["routes"][path[-1]].get(key))
        rewrite = route.get("rewrite")
        if rewrite is None:
            continue
        if not rewrite:
            document.report((*path, "rewrite"), "is empty: it needs path or host")
        if rewrite.get("path") is not None and route.get("strip_prefix") is not None:
            document.report(
                (*path, "strip_prefix"), "does not go with rewrite.path", document.key((*path, "strip_prefix"))
            )
    parameters(document, ("rewrite", "path"), ("rewrite", "host"))
    patterns_in(document, ("rewrite", "path"))
    callers(document, ("rewrite", "path"), ("rewrite", "host"))
    for key in ("request_headers", "response_headers"):
        parameters(document, (key, "set", None), (key, "add", None))


def _headers(document: Document, path: Path, rules: Any) -> None:
    for key in ("set", "add", "remove"):
        held = rules.get(key) if isinstance(rules, dict) else None
        if isinstance(held, dict):
            field_names(document, (*path, key), held)
        elif isinstance(held, list):
            _twice(document, [((*path, key, at), name) for at, name in enumerate(held) if isinstance(name, str)])


def field_names(document: Document, path: Path, held: Iterable[str] | None, refused: Mapping[str, str] = {}) -> None:
    """Reports names, keys of the map at ``path``, that rules cannot write, or that are given twice.

    ``refused`` are further names, and what is to be written in place of them.
    """
    good: list[tuple[Path, str]] = []
    for name in held or ():
        at = (*path, name)
        try:
            header_name(name)
            if name.lower() in refused:
                raise ValueError(f"is not for header rules: {refused[name.lower()]}")
            good.append((at, name))
        except ValueError as error:
            document.report(at, f"{shown(document, (), name)} {error}", document.key(at))
    _twice(document, good)


def _twice(document: Document, named: list[tuple[Path, str]]) -> None:
    seen: set[str] = set()
    for at, name in named:
        if name.lower() in seen:
            document.report(at, f"{shown(document, (), name)} is given twice", document.key(at))
        seen.add(name.lower())


def parameters(document: Document, *keys: tuple[str | None, ...]) -> None:
    """Reports ``param`` of something that is no parameter of the route, in the values at ``keys`` of each route.

    None stands for every key of a map.
    """
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        for key in keys:
            for at, text in _texts(route, path, key):
                for name in syntax.names(text):
                    _parameter(document, at, name, _patterns(document, path))


def patterns_in(document: Document, *keys: tuple[str | None, ...]) -> None:
    """Reports values at ``keys`` with a segment that the route's path has as a parameter: braces were meant."""
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        for key in keys:
            for at, text in _texts(route, path, key):
                meant = _meant(_patterns(document, path))
                segment = next((each for each in text.partition("?")[0].split("/") if each in meant), None)
                if segment is not None:
                    document.report(at, f"has {segment}, which stands for itself here: write {{{meant[segment]}}}")


def _patterns(document: Document, route: Path) -> list[Pattern]:
    return [Pattern.parse(text) for _, text in paths_of(document, route)]


def _meant(patterns: Sequence[Pattern]) -> dict[str, str]:
    """What is written in braces for each segment that is no literal."""
    meant = {f":{name}": syntax.PARAM + name for pattern in patterns for name in pattern.names}
    if any(pattern.wildcard for pattern in patterns):
        meant["*"] = syntax.REST
    return meant


def callers(document: Document, *keys: tuple[str | None, ...]) -> None:
    """Reports values at ``keys`` that need an authenticated caller, on routes where there is never one."""
    for path, route in document.entries("routes"):
        if isinstance(route, dict) and route.get("auth") == "none":
            for key in keys:
                for at, text in _texts(route, path, key):
                    if syntax.of_caller(text):
                        document.report(at, "needs a caller, but the route has auth: none: every request would be 400")


def _texts(value: Any, path: Path, key: tuple[str | None, ...]) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str) and not key:
        yield path, value
    elif isinstance(value, dict) and key:
        for each in value if key[0] is None else (key[0],):
            yield from _texts(value.get(each), (*path, each), key[1:])


def _parameter(document: Document, at: Path, name: str, patterns: list[Pattern]) -> None:
    """Reports the first path that does not have it."""
    for pattern in patterns if name.startswith(syntax.PARAM) else ():
        try:
            place(name, pattern)
        except KeyError:
            known = [syntax.PARAM + each for each in pattern.names] + [syntax.REST] * pattern.wildcard
            missing = "*" if name == syntax.REST else ":" + name.removeprefix(syntax.PARAM)
            document.report(at, f"has {{{name}}}, but the path {pattern} has no {missing}{hint(name, known)}")
            return


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    holds = transform_of(route)
    if holds.rewrite is not None and holds.rewrite.host is not None:
        yield "host", holds.rewrite.host
    for what, rules in (("request headers", holds.request_headers), ("response headers", holds.response_headers)):
        changes = list(_changes(rules))
        if changes:
            yield what, "; ".join(changes)


def _changes(rules: HeaderRules) -> Iterator[str]:
    """The names only: values may be secrets."""
    for verb, names in (
        ("set", [name for name, _ in rules.set]),
        ("add", [name for name, _ in rules.add]),
        ("remove", list(rules.remove)),
    ):
        if names:
            yield f"{verb} {', '.join(names)}"


RULES = Rules(
    keys=KEYS,
    forms={
        "header value": syntax.header_value,
        "header rule": header_name,
        "rewritten path": syntax.path,
        "rewritten host": syntax.host,
    },
    called={
        "header value": "text, perhaps with braces",
        "header rule": "header",
        "rewritten path": "path, perhaps with braces",
        "rewritten host": "host, perhaps with braces",
    },
    checks=(transform,),
    told=(told,),
)
"""The keys of changes to requests and answers."""
