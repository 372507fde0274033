"""Checks of rate limits in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve

from apigw.config import addresses
from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.rules import Less, Rules
from apigw.config.units import duration_text
from apigw.config.validate import shown
from apigw.policy.limits.model import UNMATCHED, RateLimit, rate_limits_of
from apigw.policy.limits.schema import KEYS
from apigw.routing.hosts import Hosts, may_have
from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.rules import Patterns


def limited_endpoint(text: str) -> None:
    if text != UNMATCHED:
        if not text.startswith("/"):
            near = hint(text, [UNMATCHED])
            raise ValueError(f"does not begin with /{near if 'mean' in near else ''}")
        Pattern.parse(text)


def rate_limits(document: Document, files: Files) -> None:
    """Reports two limits of one kind with one endpoint and scope. Warns of a limit that matches no route."""
    routed = _Routed(document)
    seen: dict[tuple[object, str, bool, str], Path] = {}
    for path, limit in document.entries("rate_limits"):
        if not isinstance(limit, dict):
            continue
        _kind(document, path, limit)
        if "endpoint" not in limit:
            continue
        at, endpoint = (*path, "endpoint"), limit["endpoint"]
        pattern = None if endpoint == UNMATCHED else Pattern.parse(endpoint)
        hosts = [addresses.route_host(host) for _, host in document.entries(*path, "hosts")]
        if "scope" in limit and document.is_sound((*path, "hosts")):
            shape = None if pattern is None else pattern.shape
            keys = [(shape, limit["scope"], "concurrent" in limit, host) for host in hosts or [""]]
            first = next((seen[key] for key in keys if key in seen), None)
            for key in keys:
                seen.setdefault(key, at)
            if first is not None:
                document.report(at, f"has the same endpoint and scope as the limit at {document.place(first)}")
        if pattern is None:
            _unmatched(document, path, limit)
        elif document.whole and not routed.overlap(pattern, hosts):
            document.warn(at, f"{shown(document, at, endpoint)} matches no route")


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


def _unmatched(document: Document, path: Path, limit: dict[str, Any]) -> None:
    """Such a request has no caller but its address, and is over at once."""
    if limit.get("scope") == "user":
        document.report((*path, "scope"), "is not known of requests that match no route: write ip")
    if "concurrent" in limit:
        at = (*path, "concurrent")
        document.report(at, "limits nothing where no route matches: such a request ends at once", document.key(at))


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    for limit in rate_limits_of(config):
        applies = limit.endpoint != UNMATCHED and Pattern.parse(limit.endpoint).matches(path)
        if applies and may_have(limit.hosts, route.hosts):
            yield "limit", _in_words(limit)


def told_unmatched(config: Config) -> Iterator[tuple[str, str]]:
    for limit in rate_limits_of(config):
        if limit.endpoint == UNMATCHED:
            yield "limit", _in_words(limit)


def weaker(config: Config) -> Less:
    limits = [(each, Pattern.parse(each.endpoint)) for each in rate_limits_of(config) if each.endpoint != UNMATCHED]
    return partial(_less, limits)


def _less(limits: Sequence[tuple[RateLimit, Pattern]], route: Route, other: Route, path: bytes) -> str | None:
    """A limit of ``route`` that does not hold for ``path``, in words; whoever wrote a route for that knows it."""
    own, theirs = Pattern.parse(route.path), Pattern.parse(other.path)
    if own.matches(path) or (not theirs.wildcard and _trimmed(own) == _trimmed(theirs)):
        return None
    of_host = [(limit, pattern) for limit, pattern in limits if may_have(limit.hosts, route.hosts)]
    held = [limit for limit, pattern in of_host if pattern.matches(path)]
    for limit, pattern in of_host:
        alike = (evolve(each, endpoint=limit.endpoint, hosts=limit.hosts) for each in held)
        if overlaps(pattern, own) == "always" and limit not in alike:
            return f"escapes the limit on {limit.named}"
    return None


def _trimmed(pattern: Pattern) -> tuple[bytes | None, ...]:
    """Its segments, without a slash at the end."""
    return pattern.segments[:-1] if pattern.segments[-1:] == (b"",) else pattern.segments


def _in_words(limit: RateLimit) -> str:
    each = {"user": "for each user", "ip": "for each address"}.get(limit.scope, "for all callers together")
    if limit.window is None:
        return f"{limit.concurrent} at a time {each} ({limit.named})"
    return f"{limit.limit} in {duration_text(limit.window)} {each} ({limit.named})"


RULES = Rules(
    keys=KEYS,
    forms={"limited endpoint": limited_endpoint},
    called={"limited endpoint": "path pattern or `unmatched`"},
    checks=(rate_limits,),
    weaker=(weaker,),
    told=(told,),
    told_unmatched=(told_unmatched,),
)
