# Compiled: see docs/decisions/compiled.md
"""Which of a service's targets takes the next exchange."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import gcd

from apigw.upstream.target import Target


class Balancer(ABC):
    """Shares exchanges out among targets. Knows them from ``use`` on, which may be called again at any time."""

    counts: bool = False
    """Whether it goes by ``begin`` and ``end``; else nobody need call them."""

    @abstractmethod
    def use(self, targets: Sequence[Target]) -> None:
        """These are the targets from now on, with the weights that they have now."""

    @abstractmethod
    def pick(self, but: Target | None) -> Target | None:
        """One that is available, and is not ``but``; None where there is none."""

    @abstractmethod
    def begin(self, target: Target) -> None:
        """An exchange with ``target`` has begun: it is waited for a connection, or has one."""

    @abstractmethod
    def end(self, target: Target) -> None:
        """It has ended. Called once for each ``begin``, also for a target that is no longer used."""


class RoundRobin(Balancer):
    """In turn, as often as weights say."""

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
    """A rotation in which each target stands as often as its weight says, as evenly spread as can be.

    Smooth weighted round-robin: each turn everyone gains its weight, the richest is taken and pays the total.
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
