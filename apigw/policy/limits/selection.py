# Compiled: see docs/decisions/compiled.md
"""Selects the limits that apply to a route."""

from __future__ import annotations

from collections.abc import Iterable

from apigw.policy.limits.arithmetic import Limit
from apigw.routing.pattern import Pattern, overlaps


class Selection:
    """The limits of one route: ``always`` apply to every path that it matches, ``sometimes`` depend on the path."""

    def __init__(self, always: tuple[Limit, ...] = (), sometimes: tuple[Limit, ...] = ()) -> None:
        self.always = always
        self.sometimes = sometimes

    def __bool__(self) -> bool:
        return bool(self.always or self.sometimes)

    def of(self, path: bytes) -> tuple[Limit, ...]:
        """The limits that apply to a path, as sent."""
        if not self.sometimes:
            return self.always
        return self.always + tuple([limit for limit in self.sometimes if limit.pattern.matches(path)])

    def of_addresses(self) -> Selection:
        """The ``ip`` limits, in which a 401 counts; if they refuse, the answer is 429."""
        return Selection(
            tuple(limit for limit in self.always if limit.scope == "ip"),
            tuple(limit for limit in self.sometimes if limit.scope == "ip"),
        )


def select(limits: Iterable[Limit], route: Pattern) -> Selection:
    """The selection of ``limits`` for ``route``."""
    found: dict[str, list[Limit]] = {"always": [], "sometimes": [], "never": []}
    for limit in limits:
        found[overlaps(limit.pattern, route)].append(limit)
    return Selection(tuple(found["always"]), tuple(found["sometimes"]))
