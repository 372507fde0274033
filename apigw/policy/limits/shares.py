# Compiled: see docs/decisions/compiled.md
"""A worker's own share of places, for when those of all workers cannot be had in time."""

from __future__ import annotations

from apigw.policy.limits.concurrent import HELD, Claim, Places, Want


class Shares:
    """Places apart from the other workers' and from the shared ones: each limit's divided by ``workers``, at least 1.

    So all workers together exceed a limit at most by what is taken like this.
    """

    def __init__(self) -> None:
        self.workers = 1
        self._places = Places()

    def hold(self, claim: Claim, tested: list[Want]) -> None:
        """Take the places of a claim, unless one of the limits that are ``tested`` has none left: that is its
        ``full``."""
        for limit, key in tested:
            if self._places.taken(limit, key) >= max(1, limit.most // self.workers):
                claim.full = limit
                return
        self.take(claim)
        claim.state = HELD

    def take(self, claim: Claim) -> None:
        claim.by_share = True
        self._places.take(claim.wanted)

    def free(self, claim: Claim) -> None:
        self._places.free(claim.wanted)
