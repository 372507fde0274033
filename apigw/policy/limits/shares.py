# Compiled: see docs/decisions/compiled.md
"""A worker's own share of each limit, for when the counts of all workers cannot be had in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from apigw.policy.limits.arithmetic import Checks, Decision, Limit, compile_limit
from apigw.policy.limits.concurrent import Claim, ConcurrentLimit, Want, compile_concurrent
from apigw.policy.limits.memory import MemoryStore

MAX_KEYS: Final = 16_384
"""Those of a few seconds: a lock that is not to be had is a matter of a worker that hangs, which is killed."""

_MAX_LIMITS: Final = 1_024


class Shares:
    """Counts apart from the other workers, and from the shared counts: each limit divided by ``workers``, at least 1.

    So all workers together exceed a limit at most by what is counted like this.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self.workers = 1
        self._store = MemoryStore(clock, now, MAX_KEYS)
        self._limits: dict[tuple[bytes, int], Limit] = {}

    def check(self, checks: Checks, at: float | None) -> Decision:
        return self._store.check(self._checks(checks), at)

    def check_one(self, limit: Limit, key: bytes, at: float | None) -> Decision:
        return self._store.check_one(self._rate(limit), key, at)

    def peek(self, checks: Checks, at: float | None) -> Decision:
        return self._store.peek(self._checks(checks), at)

    def admit_within(self, checks: Checks, claim: Claim, tested: list[Want], at: float | None) -> Decision | None:
        claim.by_share = True
        shares = [(self._places(limit), key) for limit, key in tested]
        decision = self._store.admit_within(self._checks(checks), claim, shares, at)
        if claim.full is not None:
            full = claim.full.id
            claim.full = next(limit for limit, _ in tested if limit.id == full)
        return decision

    def take(self, claim: Claim) -> None:
        claim.by_share = True
        self._store.take(claim)

    def free(self, claim: Claim) -> None:
        self._store.free(claim)

    def sweep(self) -> None:
        self._store.sweep()

    def _checks(self, checks: Checks) -> Checks:
        return [(self._rate(limit), key) for limit, key in checks]

    def _rate(self, limit: Limit) -> Limit:
        number = max(1, limit.limit // self.workers)
        share = self._limits.get((limit.id, number))
        if share is None:
            share = compile_limit(evolve(limit.config, limit=number, algorithm=limit.algorithm))
            share.header = limit.header
            if len(self._limits) >= _MAX_LIMITS:  # reloads have changed them so often
                self._limits.clear()
            self._limits[limit.id, number] = share
        return share

    def _places(self, limit: ConcurrentLimit) -> ConcurrentLimit:
        most = max(1, limit.most // self.workers)
        return compile_concurrent(evolve(limit.config, concurrent=most))
