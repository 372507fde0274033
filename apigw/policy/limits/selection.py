# Compiled: see docs/decisions/compiled.md
"""Selects the limits that apply to a route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from apigw.policy.limits.quota import Quota
from apigw.routing.pattern import Pattern, overlaps

L = TypeVar("L", bound=Quota)


class Selection(Generic[L]):
    """The limits of one route: ``always`` apply to every path that it matches, ``sometimes`` depend on the path."""

    def __init__(self, always: tuple[L, ...] = (), sometimes: tuple[L, ...] = ()) -> None:
        self.always = always
        self.sometimes = sometimes

    def __bool__(self) -> bool:
        return bool(self.always or self.sometimes)

    def of(self, path: bytes) -> tuple[L, ...]:
        """The limits that apply to a path, as sent."""
        if not self.sometimes:
            return self.always
        return self.always + tuple([limit for limit in self.sometimes if _matches(limit, path)])

    def of_addresses(self) -> Selection[L]:
        """The ``ip`` limits, in which a 401 counts; if they refuse, the answer is 429."""
        return Selection(
            tuple(limit for limit in self.always if limit.scope == "ip"),
            tuple(limit for limit in self.sometimes if limit.scope == "ip"),
        )


def select(limits: Iterable[L], route: Pattern | None) -> Selection[L]:
    """The selection of ``limits`` for ``route``; ``None`` stands for requests that match no route."""
    found: dict[str, list[L]] = {"always": [], "sometimes": [], "never": []}
    for limit in limits:
        pattern = limit.pattern
        if pattern is None or route is None:
            found["always" if pattern is route else "never"].append(limit)
        else:
            found[overlaps(pattern, route)].append(limit)
    return Selection(tuple(found["always"]), tuple(found["sometimes"]))


def _matches(limit: Quota, path: bytes) -> bool:
    return limit.pattern is not None and limit.pattern.matches(path)
