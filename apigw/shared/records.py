# Compiled: see docs/decisions/compiled.md
"""Records in the shared page: bytes by name, each of an owner, for as many as there is room.

When there is no more, the owner that has the most loses one that was not used for long: so none pushes out what others
have. Both are approximate: of the next 64 records one leaves.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.locks import STRUCTURE
from apigw.shared.spot import Spot
from apigw.shared.table import CELL, COUNTER, FIRST, LAST, LINK, OWNER, RECORD, STATE, UNTIL, Table

FOR_EVER: Final = 2**62
"""``until`` of a record that does not leave when there is no room."""

_A_CHUNK: Final = 8 * (CELL - 1)
_SAMPLE: Final = 64


class Busy(Exception):
    """The lock was not to be had in time, or there is no room at all."""


@final
class Records:
    """On a table with one stripe. Times are in the unit of the caller's, and of one clock.

    Every method takes the lock, and raises ``Busy`` if it cannot.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._lock: i64 = table.first_lock
        self._stripe: i64 = table.stripe_of(table.first_lock)

    def __len__(self) -> int:
        """Number of records, those included that are over and were not needed for room yet."""
        return len(self._table.entries(self._lock, RECORD))

    def get(self, name: bytes, now: int) -> bytes | None:
        """The record, unless it is over."""
        self._take()
        try:
            cell = self._found(name, now)
            return self._read(cell) if cell else None
        finally:
            self._table.locks.give_back(self._lock)

    def all(self) -> list[bytes]:
        """Every record, also those that are over."""
        self._take()
        try:
            return [self._read(cell) for cell in self._table.entries(self._lock, RECORD)]
        finally:
            self._table.locks.give_back(self._lock)

    def put(self, name: bytes, owner: bytes, data: bytes, until: int, now: int) -> None:
        """Store a record, in place of one of this name, which stays if there is no room."""
        self._take()
        try:
            self._write(name, owner, data, until, now)
        finally:
            self._table.locks.give_back(self._lock)

    def replace(self, name: bytes, begins: bytes, owner: bytes, data: bytes, until: int, now: int) -> bool:
        """``put``, if the stored record is not over and begins so (compare and set). Whether it was stored."""
        self._take()
        try:
            cell = self._found(name, now)
            if not cell or not self._read(cell).startswith(begins):
                return False
            self._write(name, owner, data, until, now)
            return True
        finally:
            self._table.locks.give_back(self._lock)

    def first(self, name: bytes, owner: bytes, data: bytes, until: int, now: int) -> bytes:
        """The record, which is ``data`` if there is none yet: all who offer one get the same."""
        self._take()
        try:
            cell = self._found(name, now)
            if cell:
                return self._read(cell)
            self._write(name, owner, data, until, now)
            return data
        finally:
            self._table.locks.give_back(self._lock)

    def remove(self, name: bytes) -> None:
        self._take()
        try:
            cell = self._table.find(self._table.spot(_of_record(name)))
            if cell:
                self._remove(cell)
        finally:
            self._table.locks.give_back(self._lock)

    def _take(self) -> None:
        if not self._table.locks.take(self._lock):
            raise Busy

    def _found(self, name: bytes, now: i64) -> i64:
        table = self._table
        cell = table.find(table.spot(_of_record(name)))
        if not cell:
            return 0
        until: i64 = table.words[cell + UNTIL]
        return cell if now < until else 0

    def _read(self, cell: i64) -> bytes:
        words = self._table.words
        length: i64 = words[cell + STATE]
        chunk: i64 = words[cell + FIRST]
        parts: list[bytes] = []
        for _ in range(_chunks(length)):
            parts.append(bytes(words[chunk + 1 : chunk + CELL]))
            head: i64 = words[chunk]
            chunk = head >> LINK
        return b"".join(parts)[:length]

    def _write(self, name: bytes, owner: bytes, data: bytes, until: i64, now: i64) -> None:
        table, words = self._table, self._table.words
        spot: Spot = table.spot(_of_record(name))
        of_owner: Spot = table.spot(b"owner " + owner)
        table.locks.writes(self._lock, STRUCTURE)
        before = table.find(spot)
        chunks = _chunks(len(data))
        # One for the record, and one for an owner that has no other. The old record goes only once there is room.
        self._make_room(chunks + 2 - (self._cells_of(before) if before else 0), now, before)
        if before:
            self._remove(before)
        cell = table.add(spot, RECORD, of_owner.mark, now)
        words[cell + UNTIL] = until
        words[cell + STATE] = len(data)
        padded = data.ljust(int(chunks) * _A_CHUNK, b"\0")
        last: i64 = 0
        for at in range(chunks):
            chunk = table.free_cell(self._stripe)
            words[chunk] = 0
            words[chunk + 1 : chunk + CELL] = memoryview(padded[at * _A_CHUNK : (at + 1) * _A_CHUNK]).cast("q")
            if last:
                words[last] = chunk << LINK
            else:
                words[cell + FIRST] = chunk
            last = chunk
        words[cell + LAST] = last
        self._count(of_owner, 1)

    def _cells_of(self, cell: i64) -> i64:
        """How many are free when a record has been removed, with that of an owner who has no other."""
        words = self._table.words
        length: i64 = words[cell + STATE]
        return _chunks(length) + (2 if self._number_of_owner(cell) == 1 else 1)

    def _number_of_owner(self, cell: i64) -> i64:
        """The number of records of a record's owner."""
        words = self._table.words
        mark: i64 = words[cell + OWNER]
        number: i64 = words[self._table.find(self._table.spot_of(self._lock, mark)) + STATE]
        return number

    def _remove(self, cell: i64) -> None:
        table = self._table
        mark: i64 = table.words[cell + OWNER]
        table.locks.writes(self._lock, STRUCTURE)
        table.remove(self._stripe, cell)
        self._count(table.spot_of(self._lock, mark), -1)

    def _count(self, spot: Spot, by: i64) -> None:
        """The owner has so many more; one that has none is forgotten."""
        table = self._table
        cell = table.find(spot)
        number: i64 = by
        if cell:
            its: i64 = table.words[cell + STATE]
            number += its
        else:
            cell = table.add(spot, COUNTER, 0, 0)
            table.words[cell + UNTIL] = FOR_EVER
        table.words[cell + STATE] = number
        if number <= 0:
            table.remove(self._stripe, cell)

    def _make_room(self, cells: i64, now: i64, keep: i64) -> None:
        """See that so many cells are free. Raises ``Busy`` if nothing is left that could leave, except ``keep``."""
        table = self._table
        taken: list[i64] = []
        full = False
        while len(taken) < cells and not full:
            cell = table.free_cell(self._stripe)
            if cell:
                taken.append(cell)
            else:
                full = not self._remove_one(now, keep)
        for each in taken:
            table.give_cell(self._stripe, each)
        if full:
            raise Busy

    def _remove_one(self, now: i64, keep: i64) -> bool:
        table, words = self._table, self._table.words
        chosen: i64 = 0
        most: i64 = 0
        seen: i64 = 0
        for _ in range(2 * table.cells):
            cell = table.next_cell(self._stripe)
            until: i64 = words[cell + UNTIL]
            if table.kind(cell) != RECORD or until == FOR_EVER or cell == keep:
                continue
            number = self._number_of_owner(cell)
            used = table.unuse(cell)
            # Twice the owner's number, and one more for what was not used since it was looked at last.
            weight = 2 * number + (0 if used else 1)
            if until <= now:
                weight = FOR_EVER
            if weight > most:
                chosen, most = cell, weight
            seen += 1
            if seen == _SAMPLE or until <= now:
                break
        if chosen:
            self._remove(chosen)
        return bool(chosen)


def _chunks(length: i64) -> i64:
    """How many hold so many bytes."""
    return (length + _A_CHUNK - 1) // _A_CHUNK if length else 1


def _of_record(name: bytes) -> bytes:
    return b"record " + name
