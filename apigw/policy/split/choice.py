# Compiled: see docs/decisions/compiled.md
"""Chooses the service of an exchange: by its position among the weights.

The services lie beside each other in the order of the configuration, each as wide as its weight. So a changed weight
moves only those between the old and the new border.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Final, final

from apigw.contract.choice import Choice
from apigw.contract.exchange import Exchange
from apigw.policy.split.cookie import POSITIONS, Cookie
from apigw.wire.headers import first

Random = Callable[[], float]
"""A number from 0 to below 1, as ``random.random``."""
Chosen = Callable[[int], object]
"""Called with the number of the service that was chosen."""

_LONGEST: Final = 4096
"""Bytes of a header's value that are looked at."""


class AtRandom(Choice):
    """Each exchange for itself. The others do so where an exchange has nothing to go by."""

    def __init__(self, weights: Sequence[tuple[str, int]], random: Random, chosen: Chosen) -> None:
        super().__init__(tuple(name for name, _ in weights))
        self._borders = list(accumulate(weight for _, weight in weights))
        self._total = self._borders[-1]
        self._random = random
        self._chosen = chosen

    def choose(self, exchange: Exchange) -> int:
        point = self.point(exchange)
        if point < 0:
            point = int(self._random() * self._total)
        number = bisect_right(self._borders, point)
        self._chosen(number)
        return number

    def point(self, exchange: Exchange) -> int:
        """The place of an exchange from 0 to below the sum of the weights; -1 if it has none."""
        return -1

    def hashed(self, value: bytes) -> int:
        """The place of all exchanges with this value, in every process, for ever."""
        digest = blake2b(value, digest_size=8, person=b"apigw split").digest()
        return int.from_bytes(digest, "big") * self._total >> 64


@final
class ByHeader(AtRandom):
    """By the value of the first header ``name``, in lower case."""

    def __init__(self, weights: Sequence[tuple[str, int]], random: Random, chosen: Chosen, name: bytes) -> None:
        super().__init__(weights, random, chosen)
        self._name = name

    def point(self, exchange: Exchange) -> int:
        value = first(exchange.headers, self._name)
        return self.hashed(value[:_LONGEST]) if value else -1


@final
class ByPrincipal(AtRandom):
    def point(self, exchange: Exchange) -> int:
        principal = exchange.principal
        return -1 if principal is None else self.hashed(principal.key)


@final
class ByCookie(AtRandom):
    """By a cookie, which is set where there is none that is valid. It does not go on to the service."""

    def __init__(self, weights: Sequence[tuple[str, int]], random: Random, chosen: Chosen, cookie: Cookie) -> None:
        super().__init__(weights, random, chosen)
        self._cookie = cookie

    def point(self, exchange: Exchange) -> int:
        request, cookie = exchange.request, self._cookie
        position, request.headers = cookie.take(request.headers)
        if position is None:
            position = int(self._random() * POSITIONS)
            set_cookie = cookie.set(position, exchange.is_https)
            exchange.added = [*exchange.added, (b"set-cookie", set_cookie)]
        return position * self._total // POSITIONS
