# Compiled: see docs/decisions/compiled.md
"""What all stores in memory can do, whether they are of one process or of all workers: they answer at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from apigw.policy.limits.arithmetic import SECOND, Checks, Decision, Limit
from apigw.policy.limits.concurrent import Claim, ClaimStore, ConcurrentLimit, Want

SWEEP_INTERVAL: Final = 0.25
"""Seconds between two steps of the removal of expired keys. In a large store 192 steps visit every key."""


class LocalStore(ClaimStore):
    """Counts in memory. Times are seconds of the monotonic clock; None is now.

    Windows use that clock, so a change of the wall clock has no effect. ``now`` is Unix time, for the end of the window
    in decisions.
    """

    kind: ClassVar[str] = "memory"
    up: ClassVar[bool] = True

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._seconds: Callable[[], float] = clock.seconds
        self._now = now
        self._compared = 0
        self._difference: int | None = None
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = clock

    def __len__(self) -> int:
        """Number of keys, those included that have expired and are not removed yet."""
        raise NotImplementedError

    def keys(self) -> Mapping[bytes, int]:
        """The number of keys of each limit, by its id."""
        raise NotImplementedError

    def keys_of(self, limit: Limit) -> int:
        return self.keys().get(limit.id, 0)

    def taken(self, limit: ConcurrentLimit) -> tuple[int, int]:
        """The number of callers that hold places of a limit, and the number of these places."""
        raise NotImplementedError

    def start(self) -> Deferred[None]:
        """Begin to remove expired keys."""
        self._sweeping.start(SWEEP_INTERVAL, now=False)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        if self._sweeping.running:
            self._sweeping.stop()
        return succeed(None)

    def sweep(self) -> None:
        """Remove a part of the expired keys."""
        raise NotImplementedError

    def check(self, checks: Checks, at: float | None = None) -> Decision:
        """Test all checks, then count all, unless one refuses."""
        raise NotImplementedError

    def check_one(self, limit: Limit, key: bytes, at: float | None = None) -> Decision:
        """``check`` where one limit applies, as on most routes."""
        raise NotImplementedError

    def peek(self, checks: Checks, at: float | None = None) -> Decision:
        """The decision that ``check`` would make, without counting or marking keys as used."""
        raise NotImplementedError

    def spent(self, checks: Checks, at: float) -> Decision | None:
        """The refusal, where ``check`` would refuse. Counts nothing and is no use of the keys."""
        decision = self.peek(checks, at)
        return None if decision.allowed else decision

    def admit(self, checks: Checks, claim: Claim, at: float | None = None) -> Decision | None:
        """``check``, and take the places of ``claim``: both, or neither. ``None`` where there is nothing to check.

        Where it is refused, ``claim.full`` is the limit that has no place, or the decision says which rate is used up.
        """
        return self.admit_within(checks, claim, claim.wanted, at)

    def admit_within(
        self, checks: Checks, claim: Claim, tested: list[Want], at: float | None = None
    ) -> Decision | None:
        """``admit``, but of the claim's limits only those that are ``tested`` can refuse it."""
        raise NotImplementedError

    def take(self, claim: Claim) -> None:
        """Take the places of a claim that another store has granted."""
        raise NotImplementedError

    def _moment(self, at: float | None) -> int:
        """In microseconds."""
        return int((self._seconds() if at is None else at) * SECOND + 0.5)

    def _ahead(self, moment: int) -> int:
        """The microseconds by which Unix time is ahead of the clock: as it was when it was read, once a second."""
        known = self._difference
        if known is None or not 0 <= moment - self._compared < SECOND:
            self._compared = moment
            self._difference = known = int((self._now() - self._seconds()) * SECOND + 0.5)
        return known
