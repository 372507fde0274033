# Compiled: see docs/decisions/compiled.md
"""The store in the shared page: counts exactly over all workers of this machine, and answers at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from mypy_extensions import i64
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from apigw.policy.limits.arithmetic import Checks, Decision, Limit, LogLimit, Standing, allow, decide
from apigw.policy.limits.concurrent import HELD, WANTED, Claim, ConcurrentLimit, Want
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.page_log import begin_log, count_counter, count_log, glance, look_counter, look_log
from apigw.policy.limits.shares import Shares
from apigw.shared.debts import Debts
from apigw.shared.locks import Locks
from apigw.shared.page import Page
from apigw.shared.places import Places
from apigw.shared.slots import WITHOUT_ROOM
from apigw.shared.spot import Spot
from apigw.shared.table import COUNTER, LOG, Table

SWEPT: Final = 16
"""Parts of the table (``table.SWEPT_AT_ONCE``) that all workers together look at in a ``SWEEP_INTERVAL``: a full table
of 64 MiB is seen through in half a minute, for 0.3 % of one core."""

KEPT: Final = 4096
"""Keys of which it is remembered where they are in the page: most callers come again."""

_ID: Final = Struct("=q")


class PageStore(LocalStore):
    """Counts in the table of ``page``, for as many keys as it has room for; the least recently used leave.

    The monotonic clock is the same in all workers.

    A check whose lock is not free in time is admitted if the limit has room for it beyond any doubt, and counted when
    the lock is free. Until then it is a debt that all workers know of, so that none admits what it needs. A place whose
    lock is not free, or for which the table has no room, is decided by this worker's share.
    """

    def __init__(self, page: Page, clock: IReactorTime, now: Callable[[], float]) -> None:
        super().__init__(clock, now)
        self._page = page
        self._table: Table = page.limits
        self._places: Places = page.places
        self._locks: Locks = page.locks
        self._known: dict[bytes, dict[bytes, Spot]] = {}
        """Of each limit, by its id: where its keys are."""
        self._kept = 0
        self._debts: Debts = page.debts
        self._shares = Shares()
        self._uncounted: list[Checks] = []
        """What was admitted without the locks. A worker waits before it misses one: so there are few."""
        self._owed: list[Want] = []
        """Places to free, whose locks were not to be had."""
        self._next_swept: i64 = 0

    def __len__(self) -> int:
        return len(self._table)

    def keys(self) -> Mapping[bytes, int]:
        return {_ID.pack(owner): number for owner, number in self._table.owners().items()}

    def taken(self, limit: ConcurrentLimit) -> tuple[int, int]:
        return self._places.of(_id(limit.id))

    def check(self, checks: Checks, at: float | None = None) -> Decision:
        if len(checks) == 1:
            limit, key = checks[0]
            return self.check_one(limit, key, at)
        moment = self._moment(at)
        spots = self._spots(checks)
        locks = self._take_all(spots)
        if locks is None:
            return self._without_locks(checks, moment, 1)
        try:
            standings = self._look_all(checks, spots, moment, True)
            decision = decide(standings, moment, 1, self._ahead(moment))
            if decision.allowed:
                self._count_all(spots, standings)
        finally:
            self._give_back(locks)
        return decision

    def check_one(self, limit: Limit, key: bytes, at: float | None = None) -> Decision:
        moment = self._moment(at)
        ahead = self._ahead(moment)
        spot = self._spot(limit.id, key)
        if not self._locks.take(spot.lock):
            return self._without_locks([(limit, key)], moment, 1)
        try:
            found = self._table.find(spot) != 0
            standing = self._look(limit, spot, found, moment)
            if self._debts.any(moment):
                standing = _doubted(standing, self._debts.of(spot.mark))
            allowed = standing.used < limit.limit
            if allowed:
                self._count(spot, found, standing)
            else:
                spot.seen = standing
        finally:
            self._locks.give_back(spot.lock)
        return allow(standing, 1, ahead) if allowed else decide([standing], moment, 1, ahead)

    def peek(self, checks: Checks, at: float | None = None) -> Decision:
        moment = self._moment(at)
        spots = self._spots(checks)
        locks = self._take_all(spots)
        if locks is None:
            return self._without_locks(checks, moment, 0)
        try:
            standings = self._look_all(checks, spots, moment, False)
        finally:
            self._give_back(locks)
        return decide(standings, moment, 0, self._ahead(moment))

    def admit_within(
        self, checks: Checks, claim: Claim, tested: list[Want], at: float | None = None
    ) -> Decision | None:
        moment = self._moment(at)
        spots, wanted = self._spots(checks), self._places_of(claim.wanted)
        locks = self._take_all(spots + wanted)
        decision: Decision | None = None
        if locks is None:
            self._share().hold(claim, tested)
            if checks:
                decision = self._without_locks(checks, moment, 1 if claim.full is None else 0)
            if decision is not None and not decision.allowed and claim.state == HELD:
                self._shares.free(claim)
                claim.state = WANTED
            return decision
        try:
            claim.full = self._full(tested)
            if checks:
                standings = self._look_all(checks, spots, moment, True)
                decision = decide(standings, moment, 1 if claim.full is None else 0, self._ahead(moment))
            if claim.full is None and (decision is None or decision.allowed):
                if self._hold(claim, wanted, moment):
                    claim.state = HELD
                else:
                    self._share().hold(claim, tested)
                if checks and claim.state == HELD:
                    self._count_all(spots, standings)
        finally:
            self._give_back(locks)
        return decision

    def take(self, claim: Claim) -> None:
        wanted = self._places_of(claim.wanted)
        locks = self._take_all(wanted)
        if locks is None:
            self._share().take(claim)
            return
        try:
            if not self._hold(claim, wanted, self._moment(None)):
                self._share().take(claim)
        finally:
            self._give_back(locks)

    def free(self, claim: Claim) -> None:
        if claim.by_share:
            self._shares.free(claim)
        else:
            self._free(claim.wanted)

    def stop(self) -> Deferred[None]:
        self._count_uncounted(self._moment(None))
        return super().stop()

    def sweep(self) -> None:
        """Remove the expired keys of the next parts of the table, count what is not counted yet, and free the places
        that are still owed."""
        moment = self._moment(None)
        self._count_uncounted(moment)
        owed, self._owed = self._owed, []
        if owed:
            self._free(owed)
        table = self._table
        for _ in range(max(1, SWEPT // self._page.workers)):
            # Each worker begins elsewhere.
            lock = table.first_lock + (self._next_swept + 7 * self._locks.worker) % table.stripes
            if not self._locks.take(lock):
                return
            try:
                if table.sweep(lock, moment):
                    self._next_swept += 1
            finally:
                self._locks.give_back(lock)

    def _without_locks(self, checks: Checks, moment: int, counted: int) -> Decision:
        """Admitted only where what is known to count, what may count beside it and this one are within the limit."""
        refusal = self._still_refused(checks, moment)
        if refusal is not None:
            return refusal
        debts, worker, spots = self._debts, int(self._locks.worker), self._spots(checks)
        now = self._moment(None)  # ``moment`` is that of the request, which may have waited for something since
        for spot in spots:  # before anything is read: of two workers that do this at once, one sees the other's
            debts.add(worker, spot.mark, now)
        standings: list[Standing] = []
        for place, (limit, _) in enumerate(checks):
            spot = spots[place]
            # First the debts: what is counted meanwhile is seen twice then, and not missed.
            owed = debts.of(spot.mark)
            standings.append(_doubted(glance(self._table, limit, spot, moment), owed))
        decision = decide(standings, moment, counted, self._ahead(moment))
        if counted and decision.allowed:
            self._uncounted.append(checks)
        else:
            for spot in spots:
                debts.subtract(worker, spot.mark)
        return decision

    def _count_uncounted(self, moment: int) -> None:
        """What was admitted without locks, as far as these can be had now."""
        while self._uncounted:
            checks = self._uncounted[-1]
            spots = self._spots(checks)
            locks = self._take_all(spots)
            if locks is None:
                self._debts.say(moment)
                return
            try:
                standings = [
                    self._look(limit, spots[place], self._table.find(spots[place]) != 0, moment)
                    for place, (limit, _) in enumerate(checks)
                ]
                self._count_all(spots, standings)
                for spot in spots:
                    self._debts.subtract(int(self._locks.worker), spot.mark)
            finally:
                self._give_back(locks)
            self._uncounted.pop()

    def _still_refused(self, checks: Checks, moment: int) -> Decision | None:
        """The refusal, where a limit was used up when it was looked at last, and nothing can have passed since."""
        standings: list[Standing] = []
        for limit, key in checks:
            seen = self._spot(limit.id, key).seen
            if isinstance(seen, Standing) and seen.limit is limit and moment < seen.passes:
                standings.append(seen)
        return decide(standings, moment, 1, self._ahead(moment)) if standings else None

    def _look(self, limit: Limit, spot: Spot, found: bool, moment: int) -> Standing:
        if not found:
            return limit.look(None, moment)
        if spot.kind == LOG:
            return look_log(self._table, limit, spot, moment)
        return look_counter(limit, spot, moment)

    def _look_all(self, checks: Checks, spots: list[Spot], moment: int, use: bool) -> list[Standing]:
        standings: list[Standing] = []
        for place, (limit, _) in enumerate(checks):
            found = self._table.find(spots[place], use) != 0
            standing = self._look(limit, spots[place], found, moment)
            if self._debts.any(moment):
                standing = _doubted(standing, self._debts.of(spots[place].mark))
            if standing.used >= limit.limit:
                spots[place].seen = standing
            standings.append(standing)
        return standings

    def _count(self, spot: Spot, found: bool, standing: Standing) -> None:
        """One more, in the entry that was ``found``, or in a new one."""
        table, limit = self._table, standing.limit
        if not found:
            if not table.add(spot, COUNTER, _id(limit.id), standing.clock):
                self._count_without_room()
            elif isinstance(limit, LogLimit):
                begin_log(table, spot, standing)
            else:
                count_counter(table, spot, standing)
        elif spot.kind == LOG:
            count_log(table, spot, standing)
        elif standing.used or not isinstance(limit, LogLimit):
            count_counter(table, spot, standing)
        else:  # of a log that had become a counter nothing counts any more
            begin_log(table, spot, standing)

    def _count_all(self, spots: list[Spot], standings: list[Standing]) -> None:
        for place, spot in enumerate(spots):
            # Found anew: it may have left for an entry of those before.
            self._count(spot, self._table.find(spot, False) != 0, standings[place])

    def _full(self, tested: list[Want]) -> ConcurrentLimit | None:
        """The first limit without a place for its caller."""
        for limit, key in tested:
            if self._places.taken(self._spot(limit.id, key)) >= limit.most:
                return limit
        return None

    def _hold(self, claim: Claim, spots: list[Spot], moment: int) -> bool:
        """Take the places, all or none. False if there is no room for them."""
        worker = self._locks.worker
        for place, (limit, _) in enumerate(claim.wanted):
            if not self._places.take(spots[place], _id(limit.id), worker, moment):
                for spot in spots[:place]:
                    self._places.free(spot, worker)
                self._count_without_room()
                return False
        return True

    def _free(self, wanted: list[Want]) -> None:
        spots = self._places_of(wanted)
        locks = self._take_all(spots)
        if locks is None:
            self._owed += wanted
            return
        try:
            for spot in spots:
                self._places.free(spot, self._locks.worker)
        finally:
            self._give_back(locks)

    def _spots(self, checks: Checks) -> list[Spot]:
        return [self._spot(limit.id, key) for limit, key in checks]

    def _places_of(self, wanted: list[Want]) -> list[Spot]:
        return [self._spot(limit.id, key) for limit, key in wanted]

    def _spot(self, identity: bytes, key: bytes) -> Spot:
        """Where a limit's key is in the page."""
        keys = self._known.get(identity)
        if keys is not None:
            known = keys.get(key)
            if known is not None:
                return known
        if self._kept >= KEPT:
            self._known.clear()
            self._kept = 0
        spot = self._table.locate(identity + key)
        self._known.setdefault(identity, {})[key] = spot
        self._kept += 1
        return spot

    def _take_all(self, spots: list[Spot]) -> list[int] | None:
        """Take the locks of all, in ascending order, so that nobody waits in a circle. None if one is not to be had."""
        locks = sorted({int(spot.lock) for spot in spots})
        for place, lock in enumerate(locks):
            if not self._locks.take(lock):
                self._give_back(locks[:place])
                return None
        return locks

    def _give_back(self, locks: list[int]) -> None:
        for lock in locks:
            self._locks.give_back(lock)

    def _share(self) -> Shares:
        """What decides where a lock was not to be had, which its worker's slot has counted."""
        self._shares.workers = self._page.workers
        return self._shares

    def _count_without_room(self) -> None:
        self._page.slots.add(self._locks.worker, WITHOUT_ROOM, 1)


def local_store(page: Page | None, clock: IReactorTime, now: Callable[[], float]) -> LocalStore:
    """The store in memory: in the page that the workers share, if there are several."""
    return MemoryStore(clock, now) if page is None else PageStore(page, clock, now)


def _doubted(standing: Standing, owed: i64) -> Standing:
    """Used up for the moment, if it will be with what is ``owed``.

    A request whose own debt is among it needs one more: who has the lock may be counting one, and not have seen it.
    """
    limit = standing.limit
    if standing.used < limit.limit <= standing.used + int(owed):
        return Standing(limit, standing.clock, limit.limit, standing.resets, standing.clock + 1)
    return standing


def _id(identity: bytes) -> int:
    """A limit's id as a word."""
    number: int = _ID.unpack(identity)[0]
    return number
