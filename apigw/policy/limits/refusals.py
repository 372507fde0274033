# Compiled: see docs/decisions/compiled.md
"""A bounded memory of the addresses that limits in Redis have refused."""

from __future__ import annotations

from math import ceil
from typing import Final

from twisted.internet.interfaces import IReactorTime

from apigw.policy.limits.arithmetic import SECOND, Checks, Decision, Standing, unix_seconds

MAX_REFUSED: Final = 16_384
"""Maximum number of refused addresses that are remembered, with some 200 bytes each."""


class Refused:
    """One refusal: ``until`` is its end in the clock's seconds, ``reset`` the end of the window in Unix seconds.

    ``number`` is the limit at that time. A reload may raise the limit, and its counts continue.
    """

    def __init__(self, number: int, until: float, reset: int) -> None:
        self.number = number
        self.until = until
        self.reset = reset


class Refusals:
    """The last refusal of each limit and address, until it ends; ``most`` of them."""

    def __init__(self, clock: IReactorTime, most: int = MAX_REFUSED) -> None:
        self._clock = clock
        self._most = most
        self._refused: dict[bytes, Refused] = {}

    def of(self, checks: Checks, at: float) -> Decision | None:
        """The first refusal that still holds at ``at``, in the clock's seconds."""
        for limit, key in checks:
            name = limit.id + key
            known = self._refused.get(name)
            if known is not None:
                if at < known.until and limit.limit <= known.number:
                    return Decision(False, limit, 0, known.reset, ceil(known.until - at))
                del self._refused[name]
        return None

    def remember(self, checks: Checks, standings: list[Standing], time: int) -> None:
        """Remember the refused ones of ``checks``. ``time`` and the standings are in the time of Redis."""
        now = self._clock.seconds()
        for (limit, key), standing in zip(checks, standings, strict=True):
            if limit.scope == "ip" and standing.used >= limit.limit:
                name = limit.id + key
                self._refused.pop(name, None)
                until = now + (standing.passes - time) / SECOND
                self._refused[name] = Refused(limit.limit, until, unix_seconds(standing.resets))
                if len(self._refused) > self._most:
                    del self._refused[next(iter(self._refused))]
