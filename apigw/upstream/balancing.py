# Compiled: see docs/decisions/compiled.md
"""Load balancing: chooses the target of the next exchange. Why these algorithms: docs/decisions/balancing.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import gcd
from typing import Final, final

from apigw.upstream.target import Target

MOST_TURNS: Final = 4096
"""Turns of a rotation, or somewhat more. Weights with a larger sum, as those of SRV records, are rounded."""

POINTS: Final = 100
"""Points of a target of average weight on the ring. Its share of the keys is then within some 20 % of its weight."""
MOST_POINTS: Final = 1000

BOUND: Final = 1.25
"""No target has more than this times the average number of requests (consistent hashing with bounded loads, Mirrokni,
Thorup, Zadimoghaddam, 2018)."""

Random = Callable[[], float]
"""A number from 0 to 1, as ``random.random``."""


class Balancer(ABC):
    """A load balancing algorithm. ``use`` sets the targets, and may be called again at any time."""

    def __init__(self) -> None:
        self.counts = False
        """Whether it goes by the number of requests that are in flight with each target: ``Target.load``."""
        self.load = 0
        """Their sum over all targets in use. The upstream keeps both."""

    @abstractmethod
    def use(self, targets: Sequence[Target]) -> None:
        """Set the targets, with their current weights. One of weight 0 is never chosen."""

    def changed(self) -> None:  # noqa: B027  # most algorithms need not know
        """Some targets have become available, or no longer are."""

    @abstractmethod
    def choose(self, key: bytes, exclude: tuple[Target, ...]) -> Target | None:
        """An available target that is not in ``exclude``, or None.

        ``key`` is what exchanges of one target have in common, if the algorithm is a hash. Others do not look at it.
        """


@final
class RoundRobin(Balancer):
    """Weighted round-robin."""

    def __init__(self) -> None:
        super().__init__()
        self._rotation: list[Target] = []
        self._turn = -1

    def use(self, targets: Sequence[Target]) -> None:
        self._rotation = interleave(targets)

    def choose(self, key: bytes, exclude: tuple[Target, ...]) -> Target | None:
        rotation = self._rotation
        length = len(rotation)
        turn = self._turn
        reserve = -1
        for _ in range(length):
            turn += 1
            if turn >= length:
                turn = 0
            target = rotation[turn]
            if target.available and not (exclude and target in exclude):
                if not target.restrained or target.admits():
                    self._turn = turn
                    return target
                if reserve < 0 and not target.ejected:
                    reserve = turn
        if reserve < 0:
            return None
        self._turn = reserve
        return rotation[reserve]


@final
class LeastRequests(Balancer):
    """The less busy of two random targets (Mitzenmacher, *The power of two choices*, 2001).

    Both are drawn by weight. Who has fewer requests in flight, relative to its weight, is the less busy.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.counts = True
        self._random = random
        self._targets: list[Target] = []
        self._equal = True
        self._sums: list[int] = []

    def use(self, targets: Sequence[Target]) -> None:
        self._targets = [target for target in targets if target.weight]
        weights = [target.weight for target in self._targets]
        self._equal = len(set(weights)) <= 1
        self._sums = list(accumulate(weights))

    def choose(self, key: bytes, exclude: tuple[Target, ...]) -> Target | None:
        targets = self._targets
        length = len(targets)
        if length > 1:
            if self._equal:
                drawn = int(self._random() * (length * (length - 1)))
                first = drawn // (length - 1)
                second = drawn % (length - 1)
                if second >= first:
                    second += 1
            else:
                first = self._draw(self._sums)
                second = self._draw(self._sums)
                if second == first:
                    second = (first + 1) % length
            target, other = targets[first], targets[second]
            if target.available and other.available:
                if other.load * target.weight < target.load * other.weight:
                    target = other
                if not target.restrained and not exclude:
                    return target
        return self._search([each for each in targets if each.available and each not in exclude])

    def _search(self, left: list[Target]) -> Target | None:
        """As ``choose``, of those in ``left``: some others are not available, or some of these are restrained."""
        reserve: Target | None = None
        while left:
            sums = list(accumulate([target.weight for target in left]))
            target, other = left[self._draw(sums)], left[self._draw(sums)]
            if other.load * target.weight < target.load * other.weight:
                target = other
            if not target.restrained or target.admits():
                return target
            if reserve is None and not target.ejected:
                reserve = target
            left.remove(target)
        return reserve

    def _draw(self, sums: list[int]) -> int:
        return bisect_right(sums, int(self._random() * sums[-1]))


@final
class Hash(Balancer):
    """Consistent hashing with bounded loads: a ring of points, of which each target has as many as its weight asks for.

    The key's target is that of the next point. If it is not available, or has its share of the load, it is that of the
    point after that, and so on. So a target that comes or goes moves only its own keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = True
        self._targets: list[Target] = []
        self._points: list[int] = []
        self._owners: list[Target] = []
        self._weight = 0
        self._known: dict[str, list[int]] = {}

    def use(self, targets: Sequence[Target]) -> None:
        self._targets = [target for target in targets if target.weight]
        total = sum(target.weight for target in self._targets)
        known: dict[str, list[int]] = {}
        ring: list[tuple[int, str, Target]] = []
        for target in self._targets:
            share = target.weight * len(self._targets) / total
            number = max(1, min(MOST_POINTS, round(POINTS * share)))
            points = self._known.get(target.name, [])
            known[target.name] = points = points[:number] + points_of(target.name, len(points), number)
            ring += [(point, target.name, target) for point in points]
        self._known = known
        # The name decides between equal points: every gateway has the same ring.
        ring.sort(key=_place)
        self._points = [point for point, _, _ in ring]
        self._owners = [target for _, _, target in ring]
        self.changed()

    def changed(self) -> None:
        self._weight = sum(target.weight for target in self._targets if target.available)

    def choose(self, key: bytes, exclude: tuple[Target, ...]) -> Target | None:
        owners = self._owners
        length = len(owners)
        if not length or not self._weight:
            return None
        # For each unit of weight. Rounded up for each target, so that there is always room.
        average = BOUND * (self.load + 1) / self._weight
        at = bisect_right(self._points, hash_of(key))
        reserve: Target | None = None
        refused: list[Target] = []
        for _ in range(length):
            if at >= length:
                at = 0
            target = owners[at]
            at += 1
            if not target.available or target in refused:
                continue
            if not (exclude and target in exclude):
                room = target.load < average * target.weight
                if room and (not target.restrained or target.admits()):
                    return target
                if reserve is None and not target.ejected:
                    reserve = target
            refused.append(target)
            if len(refused) == len(self._targets):
                break
        return reserve


def _place(entry: tuple[int, str, Target]) -> tuple[int, str]:
    return entry[0], entry[1]


def hash_of(key: bytes) -> int:
    """64 bits. Clients choose keys: BLAKE2b, so that none finds many for one target."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def points_of(name: str, first: int, end: int) -> list[int]:
    """The points of a target, from one number to before another: the same in every process, and on every gateway."""
    return [hash_of(b"%d %b" % (number, name.encode())) for number in range(first, end)]


def interleave(targets: Sequence[Target]) -> list[Target]:
    """A rotation that contains each target as often as its weight, spread evenly: smooth weighted round-robin.

    Targets of equal weight take turns. In each step the score of every weight grows by what its targets weigh together;
    the highest is chosen, and reduced by the total.
    """
    by_weight: dict[int, list[Target]] = {}
    for target in targets:
        if target.weight:
            by_weight.setdefault(target.weight, []).append(target)
    shared = gcd(*by_weight)
    total = sum(weight // shared * len(alike) for weight, alike in by_weight.items())
    scale = min(1.0, MOST_TURNS / total) if total else 1.0
    groups = [(max(1, round(weight // shared * scale)), alike) for weight, alike in by_weight.items()]
    gains = [weight * len(alike) for weight, alike in groups]
    total = sum(gains)
    scores = [0] * len(groups)
    turns = [0] * len(groups)
    rotation: list[Target] = []
    for _ in range(total):
        scores = [score + gain for score, gain in zip(scores, gains, strict=True)]
        best = scores.index(max(scores))
        scores[best] -= total
        alike = groups[best][1]
        rotation.append(alike[turns[best]])
        turns[best] = (turns[best] + 1) % len(alike)
    return rotation
