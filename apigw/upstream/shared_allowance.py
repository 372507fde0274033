# Compiled: see docs/decisions/compiled.md
"""The connections to a target that all workers may have together, and the exchanges that may wait for one.

Decided in docs/decisions/shared-circuits.md.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64
from twisted.internet.interfaces import IReactorTime

from apigw.shared.page import Page
from apigw.shared.slots import PID
from apigw.upstream.shared_target import COLUMN, COLUMNS, CONNECTIONS, WAITING, WANTED
from apigw.wire.allowance import Allowance, Retry

POLL: Final = 0.01
"""Seconds between two looks for a place that another worker has given back, while exchanges wait for one here. A worker
gives up at most one connection in this time."""

FRESH: Final = 100
"""Milliseconds for which a worker is taken to want a connection after it has said so."""

TURN: Final = 0.1
"""Seconds for which a worker keeps a connection that others wait for, where there are fewer than workers."""

_PROCESS: Final = 32
_NUMBER: Final = 0xFFFF_FFFF
_WORKER: Final = 0xFF


@final
class SharedAllowance(Allowance):
    """What this worker takes, in the column that only it writes. Sums are taken under the cell's lock, so that they are
    exact; where that cannot be had in time, the worker has its share.
    """

    def __init__(self, most: int, most_waiting: int, page: Page, cell: int, clock: IReactorTime) -> None:
        super().__init__(most, most_waiting)
        self.alone = False
        self._clock = clock
        self._locks = page.locks
        self._cells = page.targets
        self._cell = cell
        self._lock: i64 = page.targets.lock_of(cell)
        self._slots = page.slots
        self._words = page.targets.words[cell : cell + COLUMNS]
        self._columns = page.targets.words[cell + COLUMNS : cell + page.targets.size]
        self._worker: i64 = page.worker
        self._own: i64 = self._worker * COLUMN
        self._process: i64 = page.slots.get(page.worker, PID)
        self._workers = page.workers
        self._share = max(1, most // page.workers)
        self._scarce = most < page.workers
        self._retries: list[Retry] = []
        self._polling = False
        self._took = 0.0
        self._gave = 0.0

    def take(self) -> bool:
        if not self._may_take():
            self._poll_soon()
            return False
        self.taken += 1
        self._took = self._clock.seconds()
        return True

    def take_anyway(self) -> None:
        self.taken += 1
        self._add(CONNECTIONS, 1)

    def give_back(self) -> None:
        self.taken -= 1
        self._add(CONNECTIONS, -1)

    @property
    def is_full(self) -> bool:
        return self._sum(CONNECTIONS) >= self.most

    def wait(self) -> bool:
        if self._locks.take(self._lock):
            may = self._sum(WAITING) < self.most_waiting
            if may:
                self._add(WAITING, 1)
            self._locks.give_back(self._lock)
        else:
            may = self.waiting < self.most_waiting // self._workers
            if may:
                self._add(WAITING, 1)
        self.waiting += may
        return may

    def leave(self) -> None:
        self.waiting -= 1
        self._add(WAITING, -1)
        if not self.waiting and self._words[WANTED] & _WORKER == self._worker:
            self._words[WANTED] = 0

    def retries(self, retry: Retry) -> None:
        self._retries.append(retry)

    @property
    def is_wanted(self) -> bool:
        wanted: i64 = self._words[WANTED]
        if not wanted or wanted & _WORKER == self._worker:
            return False
        return self._now() - (wanted >> 8) <= FRESH

    def gives_way(self, busy: bool) -> bool:
        now = self._clock.seconds()
        if now - self._gave < POLL:
            return False
        if busy and self.taken <= self._share and not (self._scarce and now - self._took >= TURN):
            return False
        self._gave = now
        return True

    def used(self, now: float) -> None:
        self._cells.use(self._cell, now)

    def _may_take(self) -> bool:
        if self.is_wanted and (self.taken >= self._share or self._clock.seconds() - self._gave < 2 * POLL):
            return False
        if not self._locks.take(self._lock):
            if self.taken >= self._share:
                return False
            self._add(CONNECTIONS, 1)
            return True
        may = self._sum(CONNECTIONS) < self.most
        if may:
            self._add(CONNECTIONS, 1)
        self._locks.give_back(self._lock)
        return may

    def _sum(self, what: i64) -> i64:
        columns, slots = self._columns, self._slots
        total: i64 = 0
        used: i64 = slots.used
        for worker in range(used):
            word: i64 = columns[worker * COLUMN + what]
            if word & _NUMBER:
                process: i64 = slots.get(worker, PID)
                if word >> _PROCESS == process:
                    total += word & _NUMBER
        return total

    def _add(self, what: i64, by: i64) -> None:
        at = self._own + what
        word: i64 = self._columns[at]
        if word >> _PROCESS != self._process:
            word = self._process << _PROCESS
        self._columns[at] = word + by

    def _now(self) -> i64:
        return int(self._clock.seconds() * 1000)

    def _poll_soon(self) -> None:
        if not self._polling:
            self._polling = True
            self._clock.callLater(POLL, self._poll)

    def _poll(self) -> None:
        self._polling = False
        if not self.waiting:
            return
        # Who has its share does not drown out one that has less.
        if self.taken < self._share or not self.is_wanted:
            self._words[WANTED] = self._now() << 8 | self._worker
        # Each that goes on waiting has been refused again, and so polls again.
        for retry in self._retries:
            retry()
