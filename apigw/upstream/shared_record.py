# Compiled: see docs/decisions/compiled.md
"""What a circuit knows, in the page that the workers share (docs/decisions/shared-circuits.md).

One word, the head, says what every request asks: the state, the number of the last transition, whether an operator
forced it, and whether any outcome in the window is a failure. It is read without a lock, and written last by who has
the cell's lock. Each worker counts its outcomes in a line of the cache that only it writes. Who decides, adds up under
the lock what has come since.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, final

from mypy_extensions import i64

from apigw.config.model import CircuitBreaker
from apigw.shared.cells import FIRST
from apigw.shared.page import CIRCUIT_SIZE, Page
from apigw.shared.slots import MOST_WORKERS
from apigw.upstream.record import CLOSED, Record, State

SLICES: Final = 60
"""The window has at most so many: seconds, or as many seconds as make no more."""

MOST_PROBES: Final = 1000
"""The most ``half_open_requests``."""

_HEAD: Final = FIRST
_STATE: Final = 3
_FAILED: Final = 4
_FORCED: Final = 8
_GENERATION: Final = 4

_VERSION: Final = 4
"""Changes with every change of the following, up to ``_WHY``."""
_LAST: Final = 5
_OPENED: Final = 6
_PASSED: Final = 7
_PROBES: Final = 8
# Times are floating-point numbers, endless for None.
_SINCE: Final = 9
_OPEN_FOR: Final = 10
_CLOSED_AT: Final = 11
_CHECKED_UNTIL: Final = 12
_WHY: Final = 16
_WHY_WORDS: Final = 8

_OLDEST: Final = 24
"""The oldest slice that ``_TOTAL`` and ``_FAILURES`` contain."""
_TOTAL: Final = 25
_FAILURES: Final = 26
_BUCKETS: Final = 32
"""For each slice: its number and 1, or 0 if it has none; outcomes; failures."""
_BUCKET: Final = 3

_COLUMNS: Final = 256
_COLUMN: Final = 8
"""A worker's own line: the slice of its last outcomes; outcomes and failures, ever; how many of these are added up."""
_OUTCOMES: Final = 1
_FAILED_ONES: Final = 2
_ADDED: Final = 3
_ADDED_FAILED: Final = 4

_PLACES: Final = _COLUMNS + MOST_WORKERS * _COLUMN
assert _PLACES + 2 * MOST_PROBES == CIRCUIT_SIZE


@final
class SharedRecord(Record):
    """That of one worker, in ``cell`` of ``page.circuits``. A cell of zeros is a new circuit."""

    def __init__(self, config: CircuitBreaker, page: Page, cell: int) -> None:
        super().__init__(config)
        self._cells = cells = page.circuits
        self._cell = cell
        self._locks = page.locks
        self._lock: i64 = cells.lock_of(cell)
        self._slots = page.slots
        words = cells.words
        # Small numbers, which are objects already, are indexes of these.
        self._words = words[cell : cell + _COLUMNS]
        self._times = self._words.cast("B").cast("d")
        self._text = words[cell + _WHY : cell + _WHY + _WHY_WORDS].cast("B")
        self._columns = words[cell + _COLUMNS : cell + _PLACES]
        self._places = words[cell + _PLACES : cell + CIRCUIT_SIZE]
        self._until = self._places.cast("B").cast("d")
        at = page.worker * _COLUMN
        self._own = self._columns[at : at + _COLUMN]
        # The last worker in this slot may have left some that nobody has added up.
        self._slice: i64 = self._own[0]
        self._count: i64 = self._own[_OUTCOMES]
        self._failed: i64 = self._own[_FAILED_ONES]
        self._width = max(1, ceil(config.window / SLICES))
        self._slices: i64 = max(1, ceil(config.window / self._width))
        self._turn = -inf
        """When the slice is another."""
        self._enough = config.min_requests
        self._open_for = config.open_for
        self._head: i64 = 0
        self._version: i64 = 0
        self._current = True
        """Whether all attributes are of the last transition."""

    def look(self) -> None:
        head: i64 = self._words[_HEAD]
        if head != self._head:
            self._see(head)
            # In all others the state is all that is asked.
            if not self._current and self.state is not CLOSED and self._take():
                self._load()
                self._locks.give_back(self._lock)

    def begin(self, now: float) -> bool:
        if not self._take():
            return False
        self._load()
        self._add_up(now)
        return True

    def end(self, changed: bool) -> None:
        if changed:
            self._store()
        head = self.generation << _GENERATION | int(self.state)
        if self.failures:
            head |= _FAILED
        if self.forced:
            head |= _FORCED
        if head != self._head:
            self._head = head
            self._words[_HEAD] = head
        self._locks.give_back(self._lock)

    def add(self, failed: bool, now: float) -> bool:
        turned = now >= self._turn
        if turned:
            self._next_slice(now)
        self._count += 1
        self._own[_OUTCOMES] = self._count
        if failed:
            self._failed += 1
            self._own[_FAILED_ONES] = self._failed
            return True
        if not self._head & _FAILED:
            return False
        # One more success opens a circuit if it makes them enough, or if others have left the window.
        total: i64 = self._words[_TOTAL]
        return turned or total < self._enough

    def forget(self) -> None:
        words = self._words
        words[_TOTAL] = words[_FAILURES] = 0
        for bucket in range(SLICES):
            words[_BUCKETS + bucket * _BUCKET] = 0
        self.failures = self.total = self.passed = 0
        self.probes.clear()

    def used(self, now: float) -> None:
        self._cells.use(self._cell, now)

    def _take(self) -> bool:
        return self._locks.take(self._lock)

    def _see(self, head: i64) -> None:
        self._head = head
        self.forced = bool(head & _FORCED)
        generation = int(head >> _GENERATION)
        if generation != self.generation:
            self.generation = generation
            self.state = State(int(head & _STATE))
            self._current = False

    def _load(self) -> None:
        words = self._words
        head: i64 = words[_HEAD]
        if head != self._head:
            self._see(head)
        version: i64 = words[_VERSION]
        self._current = True
        if version == self._version:
            return
        self._version = version
        times = self._times
        self.last = words[_LAST]
        self.opened = words[_OPENED]
        self.passed = words[_PASSED]
        self.since = _time(times[_SINCE])
        self.open_for = times[_OPEN_FOR]
        self.closed_at = _time(times[_CLOSED_AT])
        self.checked_until = times[_CHECKED_UNTIL]
        self.why = bytes(self._text).rstrip(b"\0").decode("ascii")
        places, until = self._places, self._until
        self.probes = {places[at]: until[at + 1] for at in range(0, 2 * words[_PROBES], 2)}

    def _store(self) -> None:
        """A worker that dies in between leaves the state as it was, as the head is not written yet."""
        words, times = self._words, self._times
        self._version += 1
        words[_VERSION] = self._version
        words[_LAST] = self.last
        words[_OPENED] = self.opened
        words[_PASSED] = self.passed
        times[_SINCE] = inf if self.since is None else self.since
        times[_OPEN_FOR] = self.open_for
        times[_CLOSED_AT] = inf if self.closed_at is None else self.closed_at
        times[_CHECKED_UNTIL] = self.checked_until
        self._text[:] = self.why.encode("ascii")[: 8 * _WHY_WORDS].ljust(8 * _WHY_WORDS, b"\0")
        words[_PROBES] = len(self.probes)
        at = 0
        for permit, until in self.probes.items():
            self._places[at] = permit
            self._until[at + 1] = until
            at += 2

    def _next_slice(self, now: float) -> None:
        """What was counted in the last slice is added up, so that it is counted in that one."""
        number = int(now) // self._width
        if self._own[_ADDED] != self._count and self._take():
            self._load()
            self._add_up(now)
            self.end(False)
        self._slice = number
        self._own[0] = number
        self._turn = float((number + 1) * self._width)

    def _add_up(self, now: float) -> None:
        """Expire what is too old, and add what every worker has counted since. Sets ``total`` and ``failures``.

        What has come between the decision to open the circuit and the moment in which others see it is left out.
        """
        words = self._words
        self._expire(int(now) // self._width)
        columns = self._columns
        used: i64 = self._slots.used
        at: i64 = 0
        for _ in range(used):
            outcomes: i64 = columns[at + _OUTCOMES]
            added: i64 = columns[at + _ADDED]
            if outcomes != added:
                failed: i64 = columns[at + _FAILED_ONES]
                added_failed: i64 = columns[at + _ADDED_FAILED]
                # In this order: who dies in between loses them, and counts none twice.
                columns[at + _ADDED] = outcomes
                columns[at + _ADDED_FAILED] = failed
                if self.state is CLOSED:
                    self._add_to(columns[at], outcomes - added, failed - added_failed)
            at += _COLUMN
        self.total = words[_TOTAL]
        self.failures = words[_FAILURES]

    def _add_to(self, slice: i64, total: i64, failures: i64) -> None:
        words = self._words
        oldest: i64 = words[_OLDEST]
        if slice < oldest:
            return
        at: i64 = _BUCKETS + slice % SLICES * _BUCKET
        its: i64 = words[at]
        if its != slice + 1:
            if its:  # the other's clock is a moment ahead, and has left the oldest slice behind
                self._take_out(at)
            words[at] = slice + 1
            words[at + 1] = total
            words[at + 2] = failures
        else:
            words[at + 1] += total
            words[at + 2] += failures
        words[_TOTAL] += total
        words[_FAILURES] += failures

    def _expire(self, slice: i64) -> None:
        """Take out what is older than the window, which ends with ``slice``."""
        words = self._words
        first = slice - self._slices + 1
        oldest: i64 = words[_OLDEST]
        if oldest >= first:
            return
        words[_OLDEST] = first
        if first - oldest >= SLICES:
            words[_TOTAL] = words[_FAILURES] = 0
            for bucket in range(SLICES):
                words[_BUCKETS + bucket * _BUCKET] = 0
            return
        for old in range(oldest, first):
            at: i64 = _BUCKETS + old % SLICES * _BUCKET
            its: i64 = words[at]
            if its == old + 1:
                self._take_out(at)

    def _take_out(self, at: i64) -> None:
        words = self._words
        words[_TOTAL] -= words[at + 1]
        words[_FAILURES] -= words[at + 2]
        words[at] = 0


def _time(word: float) -> float | None:
    return None if word == inf else word
