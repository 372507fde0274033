"""Checks of rate limits in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from apigw.config import addresses
from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import hint, meant
from apigw.config.paths import paths_of
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.policy.limits.model import SHORT, UNMATCHED
from apigw.policy.limits.plan_rules import plans
from apigw.policy.limits.schema import KEYS
from apigw.policy.limits.told import told, told_unmatched, weaker
from apigw.policy.limits.written import OF_CALLERS, WHO, Written, all_written, name_of
from apigw.routing.hosts import Hosts
from apigw.routing.pattern import Pattern
from apigw.routing.rules import Patterns, misnamed


def limited_endpoint(text: str) -> None:
    if text != UNMATCHED:
        if not text.startswith("/"):
            raise ValueError(f"does not begin with /{meant(text, [UNMATCHED])}")
        Pattern.parse(text)


def counted_by(text: str) -> None:
    if text in ("header", "claim"):
        raise ValueError(f"does not say which: write {{{text}: NAME}}")
    if SHORT.get(text):
        raise ValueError(f"is a scope: write {SHORT[text][0]}")
    if text not in ("principal", "address"):
        raise ValueError(
            f"is not principal, address, or a map such as {{header: X-Name}}{meant(text, ('principal', 'address'))}"
        )


def route_name(text: str) -> None:
    if not text or not text.isprintable():
        raise ValueError("is not the name of a route")


def identifier(text: str) -> None:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("is not an id: printable characters, and no space at its ends")


def rate_limits(document: Document, files: Files) -> None:
    """Reports contradictions within a limit, and two limits of one kind for the same requests and callers. Warns of a
    limit that matches no route."""
    routed = _Routed(document)
    names = _Names(document)
    seen: dict[tuple[object, ...], Path] = {}
    for limit in all_written(document):
        path, entry = limit.path, limit.entry
        _kind(document, path, entry)
        _by(document, path, entry)
        if not limit.beside:
            names.check(limit)
        if limit.endpoint is None and limit.route is None:
            continue
        at = limit.at
        if limit.counts_by is not None and all(document.is_sound((*path, key)) for key in ("hosts", "by", *WHO)):
            for key in limit.counted():
                first = seen.setdefault(key, at)
                if first != at:
                    same = "endpoint" if limit.route is None else "route"
                    place = document.place(first)
                    document.report(at, f"has the same {same}, and the same callers, as the limit at {place}")
                    break
        if limit.endpoint == UNMATCHED:
            _unmatched(document, path, entry)
        elif limit.pattern is not None and document.whole and not routed.overlap(limit.pattern, limit.hosts):
            below = limit.endpoint if limit.pattern.wildcard else f"{limit.endpoint}".removesuffix("/") + "/*"
            near = routed.overlap(Pattern.parse(f"{below}"), limit.hosts)
            said = f"{shown(document, at, limit.endpoint)} matches no route"
            document.warn(at, f"{said}; did you mean {below!r}?" if near else said)


class _Names:
    """The routes that limits name; and of routes with one name, that their limits are the same."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._known: dict[str, tuple[Path, Any]] = {}
        for path, route in document.entries("routes"):
            name = name_of(document, path)
            if name is None or not isinstance(route, dict) or not document.is_sound((*path, "rate_limits")):
                continue
            first, limits = self._known.setdefault(name, (path, route.get("rate_limits")))
            if (limits or None) != (route.get("rate_limits") or None):
                place = document.place((*first, "path"))
                sentence = f"are not those of the route at {place}, whose name is {name!r} too: give one of them a name"
                at = path if route.get("rate_limits") else first
                document.report((*at, "rate_limits"), sentence, document.key((*at, "rate_limits")))

    def check(self, limit: Written) -> None:
        document, path, entry = self._document, limit.path, limit.entry
        sound = document.is_sound((*path, "route")) and document.is_sound((*path, "endpoint"))
        if not sound:
            return
        if "route" in entry:
            at = (*path, "route")
            for key in ("endpoint", "hosts"):
                if key in entry:
                    document.report((*path, key), "does not go with route", document.key((*path, key)))
            if document.whole and entry["route"] not in self._known:
                near = hint(entry["route"], self._known)
                document.report(at, f"{shown(document, at, entry['route'])} is not the name of a route{near}")
        elif "endpoint" not in entry:
            document.report((*path, "endpoint"), "is missing, and so is route: one of them says what is limited")


class _Routed:
    """The paths that routes serve, by host."""

    def __init__(self, document: Document) -> None:
        held: dict[str, list[Pattern]] = {}
        for route, _ in document.entries("routes"):
            patterns = [Pattern.parse(text) for _, text in paths_of(document, route)]
            for host in [addresses.route_host(text) for _, text in document.entries(*route, "hosts")] or [""]:
                held.setdefault(host, []).extend(patterns)
        self._all = Patterns(pattern for patterns in held.values() for pattern in patterns)
        self._of: Hosts[Patterns] = Hosts()
        for host, patterns in held.items():
            if host:
                self._of.set(host, Patterns(patterns))
        self._others = Patterns(held.get("", ()))

    def overlap(self, pattern: Pattern, hosts: Sequence[str]) -> bool:
        """Whether some route may serve a path of ``pattern`` for one of the hosts; for any if there are none."""
        return any(self._at(host).overlap(pattern) for host in hosts or ["*."])

    def _at(self, host: str) -> Patterns:
        """Of the routes for ``host``; of all for a wildcard that no route has, as it may stand for any host."""
        named = self._of.get(host)
        if named is not None:
            return named
        if host.startswith("*."):
            return self._all
        return self._of.find(host.encode("ascii")) or self._others


def _kind(document: Document, path: Path, limit: dict[str, Any]) -> None:
    """A limit is a rate, or one of what runs at a time."""
    if not all(document.is_sound((*path, key)) for key in ("limit", "window", "concurrent")):
        return
    if "concurrent" in limit:
        kept = [key for key in ("limit", "window") if key in limit]
        for at in [(*path, key) for key in kept]:
            document.report(at, "does not go with concurrent: write two entries", document.key(at))
        if "algorithm" in limit and not kept:
            at = (*path, "algorithm")
            document.report(at, "is of limits with a window, not of concurrent: leave it out", document.key(at))
    elif "limit" not in limit and "window" not in limit:
        document.report((*path, "limit"), "is missing, and so are window, or in place of both concurrent")
    else:
        for key, other in (("limit", "window"), ("window", "limit")):
            if key not in limit:
                document.report((*path, key), f"is missing: {other} needs it")


def _by(document: Document, path: Path, entry: dict[str, Any]) -> None:
    """Whom it counts by."""
    if not document.is_sound((*path, "by")) or not document.is_sound((*path, "scope")):
        return
    if "by" not in entry:
        if "scope" not in entry:
            document.report((*path, "scope"), "is missing: it, or by, says whom it counts")
        return
    if "scope" in entry:
        document.report((*path, "scope"), "does not go with by, whose short form it is", document.key((*path, "scope")))
    seen: set[object] = set()
    for where, each in _listed(document, path):
        if isinstance(each, dict):
            if len(each) != 1:
                document.report(where, "needs one of header and claim")
                continue
            said = misnamed("headers", each["header"]) if "header" in each else None
            if said is not None:
                document.report((*where, "header"), said)
            each = ("header", each["header"].lower()) if "header" in each else ("claim", each["claim"])
        if each in seen:
            document.report(where, "is given twice")
        seen.add(each)


def _unmatched(document: Document, path: Path, entry: dict[str, Any]) -> None:
    """Such a request has no caller but its address, and is over at once."""
    sentence = "is not known of requests that match no route"
    if entry.get("scope") == "user":
        document.report((*path, "scope"), f"{sentence}: write ip")
    for where, each in _listed(document, path):
        if each == "principal" or (isinstance(each, dict) and "claim" in each):
            document.report(where, f"{'the caller' if each == 'principal' else 'a claim'} {sentence}: write address")
    for key in OF_CALLERS:
        if key in entry:
            document.report((*path, key), f"{sentence}, as they have no caller", document.key((*path, key)))
    if "concurrent" in entry:
        at = (*path, "concurrent")
        document.report(at, "limits nothing where no route matches: such a request ends at once", document.key(at))


def _listed(document: Document, path: Path) -> Iterator[tuple[Path, Any]]:
    held = document.get(*path, "by")
    if isinstance(held, str):
        yield (*path, "by"), held
    elif held is not None:
        yield from document.entries(*path, "by")


RULES = Rules(
    keys=KEYS,
    forms={
        "limited endpoint": limited_endpoint,
        "counted by": counted_by,
        "route name": route_name,
        "id": identifier,
    },
    called={
        "limited endpoint": "path pattern or `unmatched`",
        "counted by": "`principal`, `address`",
        "route name": "name of a route",
    },
    checks=(rate_limits, plans),
    weaker=(weaker,),
    told=(told,),
    told_unmatched=(told_unmatched,),
)
