"""Routes that only their order could tell apart, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.routing.pattern import Pattern

KINDS = ("headers", "query", "cookies")
"""Keys of a route with conditions."""

MAX_COMPARED = 200
"""Routes of one host and shape that each is compared with."""

Wanted = Mapping[tuple[str, str], tuple[str, object]]
"""What a route demands, by the kind and the name: one of ``equal``, ``present``, ``regex``, with its value."""


def wanted_of(document: Document, route: Path) -> Wanted | None:
    """The conditions of the route at ``route``; ``None`` if any has a problem."""
    wanted: dict[tuple[str, str], tuple[str, object]] = {}
    for kind in KINDS:
        if not document.is_sound((*route, kind)):
            return None
        for name, condition in (document.get(*route, kind) or {}).items():
            written = {"equal": condition} if isinstance(condition, str) else condition
            if len(written) == 1:
                wanted[kind, name.lower() if kind == "headers" else name] = next(iter(written.items()))
    return wanted


@frozen
class _Held:
    at: Path
    methods: Sequence[str] | None
    wanted: Wanted


class Rivals:
    """Reports routes with a host, a shape, a method and all conditions in common: which was meant cannot be told.

    Warns of those that have as many conditions, if one request may fulfil both.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._held: dict[object, list[_Held]] = {}

    def check(self, route: Path, at: Path, pattern: Pattern, hosts: Sequence[str]) -> None:
        """Compare the path ``at`` of the route at ``route`` with those before."""
        document = self._document
        wanted = wanted_of(document, route)
        if wanted is None or not document.is_sound((*route, "methods")):
            return
        mine = _Held(at, document.get(*route, "methods"), wanted)
        told: list[bool] = []
        for host in hosts or [""]:
            held = self._held.setdefault((host, pattern.shape), [])
            for other in held[:MAX_COMPARED]:
                if True not in told:
                    told += self._compare(mine, other, host, bool(told))
            held.append(mine)

    def _compare(self, mine: _Held, other: _Held, host: str, warned: bool) -> list[bool]:
        """True if it was an error, False if it was a warning."""
        common = _common(mine.methods, other.methods)
        if common is None:
            return []
        theirs = self._document.place(other.at)
        if mine.wanted == other.wanted:
            where = f" for {host}" if host else ""
            under = ", under the same conditions" if mine.wanted else ""
            sentence = f"has the same shape as the path at {theirs}, and both routes serve {common}{where}{under}"
            self._document.report(mine.at, sentence)
            return [True]
        if warned or len(mine.wanted) != len(other.wanted) or _apart(mine.wanted, other.wanted):
            return []
        sentence = f"can match the same requests as the path at {theirs}, whose route has as many conditions"
        self._document.warn(mine.at, f"{sentence}: the one that is written first is taken")
        return [False]


def _common(one: Sequence[str] | None, other: Sequence[str] | None) -> str | None:
    """The methods in common, in words; ``None`` if there are none."""
    if one is None or other is None:
        return ", ".join(one or other or ()) or "all methods"
    return ", ".join(each for each in one if each in other) or None


def _apart(one: Wanted, other: Wanted) -> bool:
    """Whether a condition of the one excludes one of the other, but for requests with several values of a name."""
    for key in one.keys() & other.keys():
        (kind, value), (theirs, their_value) = one[key], other[key]
        if (kind, theirs) == ("equal", "equal") and value != their_value:
            return True
        absent, there = (kind, value) == ("present", False), (theirs, their_value) == ("present", False)
        if absent != there:
            return True
    return False
