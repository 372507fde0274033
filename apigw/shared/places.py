# Compiled: see docs/decisions/compiled.md
"""Places in the shared page: how many of a name's are taken, and how many of these by each worker.

So the places of a worker that died can be freed. An entry has the sum in its state, and in its chunks a word for each
worker. It is over with its last place, and does not leave before, even if there is no room.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.locks import STRUCTURE
from apigw.shared.spot import Spot
from apigw.shared.table import CELL, FIRST, LAST, LINK, OWNER, PLACES, STATE, UNTIL, Table

_NEVER: Final = 2**62
_A_CHUNK: Final = CELL - 1


@final
class Places:
    """On a table. Whoever calls ``taken``, ``take`` or ``free`` has the spot's lock."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def taken(self, spot: Spot) -> i64:
        cell = self._table.find(spot, False)
        if not cell:
            return 0
        taken: i64 = self._table.words[cell + STATE]
        return taken

    def take(self, spot: Spot, owner: i64, worker: i64, now: i64) -> bool:
        """Take a place for ``worker``. False if the table has no room for it."""
        table = self._table
        words = table.words
        cell = table.find(spot, False)
        if not cell:
            cell = table.add(spot, PLACES, owner, now)
            if not cell:
                return False
            words[cell + STATE] = 0
            words[cell + UNTIL] = 0
        share = self._share(spot, cell, worker, now)
        if not share:
            return False
        table.locks.writes(spot.lock, cell)
        taken: i64 = words[cell + STATE]
        if not taken:
            words[cell + UNTIL] = _NEVER
        self._add(cell, share, 1)
        return True

    def free(self, spot: Spot, worker: i64) -> None:
        """Free a place that ``worker`` has taken."""
        table = self._table
        cell = table.find(spot, False)
        if not cell:  # the stripe was emptied since, because a worker died while it wrote
            return
        share = self._find_share(cell, worker)
        its: i64 = table.words[share] if share else 0
        if not its:
            return
        table.locks.writes(spot.lock, cell)
        self._add(cell, share, -1)
        self._end_unused(cell)

    def of(self, owner: i64) -> tuple[int, int]:
        """The number of names of which places are taken, and of these places. Read without locks."""
        names, places = 0, 0
        words = self._table.words
        for lock in self._locks():
            for cell in self._table.entries(lock, PLACES):
                its: i64 = words[cell + OWNER]
                if its == owner:
                    taken: i64 = words[cell + STATE]
                    names += 1 if taken else 0
                    places += taken
        return names, places

    def leave(self, worker: i64) -> bool:
        """Free all places of a worker that died, perhaps while it took one. False if a lock was not to be had."""
        complete = True
        table = self._table
        for lock in self._locks():
            if not table.entries(lock, PLACES):
                continue
            if not table.locks.take(lock):
                complete = False
                continue
            for cell in table.entries(lock, PLACES):
                share = self._find_share(cell, worker)
                if share:
                    table.locks.writes(lock, cell)
                    table.words[share] = 0
                    table.words[cell + STATE] = self._sum(cell)
                    self._end_unused(cell)
            table.locks.give_back(lock)
        return complete

    def _locks(self) -> range:
        return range(self._table.first_lock, self._table.first_lock + self._table.stripes)

    def _add(self, cell: i64, share: i64, by: i64) -> None:
        words = self._table.words
        its: i64 = words[share]
        words[share] = its + by
        taken: i64 = words[cell + STATE]
        words[cell + STATE] = taken + by

    def _end_unused(self, cell: i64) -> None:
        taken: i64 = self._table.words[cell + STATE]
        if not taken:
            self._table.words[cell + UNTIL] = 0

    def _sum(self, cell: i64) -> i64:
        words = self._table.words
        total: i64 = 0
        first: i64 = words[cell + FIRST]
        chunk = first & ~7
        while chunk:
            for at in range(1, CELL):
                share: i64 = words[chunk + at]
                total += share
            head: i64 = words[chunk]
            chunk = head >> LINK
        return total

    def _find_share(self, cell: i64, worker: i64) -> i64:
        """The word that holds the places of a worker; 0 if there is none yet."""
        words = self._table.words
        first: i64 = words[cell + FIRST]
        chunk = first & ~7
        for _ in range(worker // _A_CHUNK):
            if not chunk:
                return 0
            head: i64 = words[chunk]
            chunk = head >> LINK
        return chunk + 1 + worker % _A_CHUNK if chunk else 0

    def _share(self, spot: Spot, cell: i64, worker: i64, now: i64) -> i64:
        """``_find_share``, and make what is missing. 0 if there is no room."""
        found = self._find_share(cell, worker)
        while not found:
            if not self._lengthen(spot, cell, now):
                return 0
            found = self._find_share(cell, worker)
        return found

    def _lengthen(self, spot: Spot, cell: i64, now: i64) -> bool:
        table = self._table
        words = table.words
        table.locks.writes(spot.lock, STRUCTURE)
        chunk = table.cell(spot.stripe, now, cell)
        if not chunk:
            return False
        for at in range(CELL):
            words[chunk + at] = 0
        last: i64 = words[cell + LAST]
        if last:
            words[last] = chunk << LINK
        else:
            words[cell + FIRST] = chunk
        words[cell + LAST] = chunk
        return True
