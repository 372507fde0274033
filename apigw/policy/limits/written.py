"""Rate limits as they are written, before they are values: for the checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from apigw.config import addresses
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.paths import paths_of
from apigw.policy.limits.model import SHORT, UNMATCHED
from apigw.routing.pattern import Pattern

WHO = ("roles", "claims", "headers", "providers", "principals")
"""The keys that say for whom a plan is."""
OF_CALLERS = ("roles", "claims", "providers", "principals")
"""Those that nobody fits who is anonymous."""

Who = Mapping[str, frozenset[object]]
"""By each of ``WHO`` that is given, what fits: roles, or pairs of names and values."""


@frozen
class Written:
    """One entry at ``path``, which is sound in all its keys that are in ``entry``. ``route`` is the name of its route,
    and ``beside`` is true where it stands there."""

    path: Path
    entry: dict[str, Any]
    beside: bool
    route: str | None
    endpoint: str | None
    hosts: tuple[str, ...]
    who: Who | None = field(init=False)
    """``None`` if it belongs to no plan."""

    @who.default
    def _(self) -> Who | None:
        found = {key: frozenset(_accepted(key, self.entry[key])) for key in WHO if key in self.entry}
        return found if found or "plan" in self.entry else None

    @property
    def at(self) -> Path:
        """Where it says what it limits."""
        return self.path if self.beside else (*self.path, "endpoint" if self.route is None else "route")

    @property
    def pattern(self) -> Pattern | None:
        matched = self.endpoint is not None and self.endpoint != UNMATCHED
        return Pattern.parse(self.endpoint) if matched and self.endpoint else None

    @property
    def counts_by(self) -> frozenset[object] | None:
        """All that it counts by; ``None`` if it does not say so."""
        by = self.entry.get("by", SHORT.get(self.entry.get("scope", ""), None))
        if by is None:
            return None
        return frozenset(map(_dimension, [by] if isinstance(by, str) else by))

    @property
    def place(self) -> tuple[object, ...]:
        """Equal for limits of the same requests."""
        pattern = self.pattern
        return self.route, self.endpoint if pattern is None else pattern.shape, frozenset(self.hosts)

    def counted(self) -> Iterator[tuple[object, ...]]:
        """One for each host. Two limits that share one would count the same."""
        who = None if self.who is None else frozenset(self.who.items())
        place = self.place[:2]
        window = None if "concurrent" in self.entry else str(self.entry.get("window"))
        for host in self.hosts or ("",):
            yield *place, host, who, self.counts_by, window, self.entry.get("dry_run", False)


def all_written(document: Document) -> Iterator[Written]:
    """Those at the top, then those beside routes."""
    for path, entry in document.entries("rate_limits"):
        if isinstance(entry, dict):
            hosts = tuple(addresses.route_host(host) for _, host in document.entries(*path, "hosts"))
            yield Written(path, entry, False, entry.get("route"), entry.get("endpoint"), hosts)
    seen: set[str] = set()
    for route, held in document.entries("routes"):
        # Of 10,000 routes most have none, and their names need not be made up.
        name = name_of(document, route) if isinstance(held, dict) and "rate_limits" in held else None
        if name is not None and name not in seen:
            for path, entry in document.entries(*route, "rate_limits"):
                if isinstance(entry, dict):
                    seen.add(name)
                    yield Written(path, entry, True, name, None, ())


def name_of(document: Document, route: Path) -> str | None:
    """The name of a route: its own, or its first host and path. ``None`` where that cannot be told."""
    if not document.is_sound((*route, "name")) or not document.is_sound((*route, "hosts")):
        return None
    host = next((addresses.route_host(text) for _, text in document.entries(*route, "hosts")), "")
    path = next((text for _, text in paths_of(document, route)), None)
    given: str | None = document.get(*route, "name")
    return given or (None if path is None else f"{host}{path}")


def _dimension(by: Any) -> object:
    if not isinstance(by, dict):
        return by
    return tuple(sorted((key, str(name).lower() if key == "header" else name) for key, name in by.items()))


def _accepted(key: str, value: Any) -> Iterator[object]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        for name, wanted in value.items():
            yield (
                name.lower() if key == "headers" else name,
                _frozen({"equal": wanted} if key == "headers" and isinstance(wanted, str) else wanted),
            )


def _frozen(value: Any) -> object:
    """Equal where JSON's values are."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(each)) for name, each in value.items())
    if isinstance(value, list):
        return frozenset(map(_frozen, value))
    return type(value), value
