# Compiled: see docs/decisions/compiled.md
"""Selects the limits that apply to a route."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from apigw.policy.limits.quota import Placed
from apigw.routing.hosts import Overlap
from apigw.routing.pattern import Pattern, overlaps

L = TypeVar("L", bound=Placed)


class Selection(Generic[L]):
    """The limits, or plans, of one route: ``always`` apply to all its requests, ``sometimes`` depend on their path and
    host."""

    def __init__(self, always: tuple[L, ...] = (), sometimes: tuple[L, ...] = ()) -> None:
        self.always = always
        self.sometimes = sometimes

    def __bool__(self) -> bool:
        return bool(self.always or self.sometimes)

    def of(self, path: bytes, authority: bytes) -> tuple[L, ...]:
        """The limits that apply to a path and a host, both as sent."""
        if not self.sometimes:
            return self.always
        return self.always + tuple([limit for limit in self.sometimes if _matches(limit, path, authority)])

    def beside(self, others: Sequence[L]) -> Selection[L]:
        """This, and ``others``, which always apply."""
        return Selection(self.always + tuple(others), self.sometimes) if others else self


def select(limits: Iterable[L], route: Pattern | None, hosts: tuple[str, ...] = ()) -> Selection[L]:
    """The selection of ``limits`` for ``route``, which serves ``hosts``, or all that no route names if there are none;
    ``None`` stands for requests that match no route."""
    found: dict[Overlap, list[L]] = {"always": [], "sometimes": [], "never": []}
    for limit in limits:
        pattern = limit.pattern
        if pattern is None or route is None:
            of_path: Overlap = "always" if pattern is route else "never"
        else:
            of_path = overlaps(pattern, route)
        of_host = _of_host(limit, hosts)
        found[of_path if of_host == "always" or of_path == "never" else of_host].append(limit)
    return Selection(tuple(found["always"]), tuple(found["sometimes"]))


def _of_host(limit: Placed, hosts: tuple[str, ...]) -> Overlap:
    if limit.hosts is None:
        return "always"
    if not hosts:
        return "sometimes"
    covered = {limit.hosts.covers(host) for host in hosts}
    return covered.pop() if len(covered) == 1 else "sometimes"


def _matches(limit: Placed, path: bytes, authority: bytes) -> bool:
    if limit.hosts is not None and limit.hosts.find(authority) is None:
        return False
    return limit.pattern is None or limit.pattern.matches(path)
