# Compiled: see docs/decisions/compiled.md
"""Load balancing: chooses the target of the next exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import gcd

from apigw.upstream.target import Target


class Balancer(ABC):
    """A load balancing algorithm. ``use`` sets the targets, and may be called again at any time."""

    counts: bool = False
    """Whether it needs the calls of ``begin`` and ``end``."""

    @abstractmethod
    def use(self, targets: Sequence[Target]) -> None:
        """Set the targets, with their current weights."""

    @abstractmethod
    def pick(self, but: Target | None) -> Target | None:
        """An available target other than ``but``, or None."""

    @abstractmethod
    def begin(self, target: Target) -> None:
        """An exchange with ``target`` has begun: it waits for a connection, or has one."""

    @abstractmethod
    def end(self, target: Target) -> None:
        """An exchange has ended. Called once for each ``begin``, also if the target was removed meanwhile."""


class RoundRobin(Balancer):
    """Weighted round-robin."""

    def __init__(self) -> None:
        self._rotation: list[Target] = []
        self._turn = -1

    def use(self, targets: Sequence[Target]) -> None:
        self._rotation = interleave(targets, [target.config.weight for target in targets])

    def pick(self, but: Target | None) -> Target | None:
        rotation = self._rotation
        for _ in rotation:
            self._turn = (self._turn + 1) % len(rotation)
            target = rotation[self._turn]
            if target.available and target is not but:
                return target
        return None

    def begin(self, target: Target) -> None: ...

    def end(self, target: Target) -> None: ...


def interleave(targets: Iterable[Target], weights: Iterable[int]) -> list[Target]:
    """A rotation that contains each target as often as its weight, spread evenly: smooth weighted round-robin.

    In each step every target's score grows by its weight; the highest is chosen, and reduced by the total weight.
    """
    targets, weights = list(targets), list(weights)
    shared = gcd(*weights)
    weights = [weight // shared for weight in weights]
    total = sum(weights)
    credit = [0] * len(targets)
    rotation = []
    for _ in range(total):
        credit = [have + gain for have, gain in zip(credit, weights, strict=True)]
        richest = max(range(len(targets)), key=credit.__getitem__)
        credit[richest] -= total
        rotation.append(targets[richest])
    return rotation
