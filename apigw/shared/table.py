# Compiled: see docs/decisions/compiled.md
"""Hash tables in the shared page, of a fixed size: entries by name, with a state of a few words or of many.

A table has stripes. Each has a lock, and everything of a name is in one stripe: so whoever has the lock may read and
write all of it. A stripe is cells of 64 bytes: its numbers, buckets, then entries and the chunks of those that need
more words. A name's stripe and bucket are of a keyed hash, so that nobody outside can choose names that collide. It
stands for the name, too: 59 bits and those of the stripe, of which nobody will see two that are equal.

When a stripe is full the entries that were not used for long leave: CLOCK, which approximates LRU with one bit.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final, final

from mypy_extensions import i64

from apigw.shared.locks import STRUCTURE, Locks
from apigw.shared.spot import Spot

CELL: Final = 8
"""Words of a cell. That of an entry: its head, mark, owner, until, and four words of state."""

MARK: Final = 1
"""What stands for the name, shifted by ``_NAME``; below, whether the entry was used lately, and its kind. So one look
tells that an entry is still what it was. 0 in a cell that an entry has left."""
OWNER: Final = 2
"""To whom it belongs, as the id of a limit."""
UNTIL: Final = 3
"""When it is over and may be removed."""
STATE: Final = 4
FIRST: Final = 5
"""Of an entry with chunks: a word of the first one. A chunk is a head and seven words."""
LAST: Final = 6
"""A word of the last one."""

COUNTER: Final = 1
"""An entry without chunks."""
LOG: Final = 2
"""An entry with chunks, as all the following."""
PLACES: Final = 3
"""It does not leave when there is no room, unless it is over."""
RECORD: Final = 4

LINK: Final = 8
"""Bits by which a head's link is shifted: to the next of the bucket, or the next chunk. Below: whether it is that of an
entry."""
_ENTRY: Final = 1

_NAME: Final = 4
_USED: Final = 8
_KIND: Final = 7

# Of a stripe, in its first cell: the first free cell, those that have ever been used, the entries, where the hand of
# CLOCK is, and where the removal of what is over.
_FREE: Final = 0
_HIGH: Final = 1
_ENTRIES: Final = 2
_HAND: Final = 3
_SWEPT: Final = 4

_PATIENCE: Final = 256
"""Entries that CLOCK passes by because they were used lately; then the next leaves, so that the search has a bound."""

SWEPT_AT_ONCE: Final = 512
"""Cells that are looked at under one lock: some 50 µs."""

_DIGEST: Final = Struct("=QQ")
_MARK_BITS: Final = 0x07FF_FFFF_FFFF_FFFF


@final
class Table:
    """``size`` words from ``base`` on, in ``stripes`` stripes with the locks from ``first_lock`` on.

    All but ``spot`` and ``len`` is called by who has the stripe's lock. An entry is given by the word of its head; 0 is
    none. Times are whole microseconds of the monotonic clock.
    """

    def __init__(
        self, words: memoryview, locks: Locks, first_lock: int, stripes: int, base: int, size: int, secret: bytes
    ) -> None:
        self.words = words
        self.locks = locks
        self.stripes: i64 = stripes
        self.first_lock: i64 = first_lock
        self._base: i64 = base
        self._size: i64 = size // stripes // CELL * CELL
        buckets: i64 = CELL
        while buckets * 2 <= self._size // CELL:
            buckets *= 2
        self._bucket_bits: i64 = buckets - 1
        self._first: i64 = CELL + buckets
        self.cells: i64 = (self._size - self._first) // CELL
        """Of each stripe."""
        if self.cells < 1:
            raise ValueError(f"{size} words are too few for {stripes} stripes")
        self._secret = secret
        self.spot = lru_cache(4096)(self.locate)
        """``locate``, for names of which most come again."""

    def __len__(self) -> int:
        """Number of entries, those included that are over and not removed yet."""
        return sum(self.words[stripe + _ENTRIES] for stripe in self._stripes())

    def locate(self, name: bytes) -> Spot:
        """The spot of a name."""
        first, second = _DIGEST.unpack(blake2b(name, digest_size=16, key=self._secret).digest())
        stripe = first % int(self.stripes)
        mark = second & _MARK_BITS
        return self.spot_of(self.first_lock + stripe, mark)

    def spot_of(self, lock: i64, mark: i64) -> Spot:
        """That of an entry, from its mark."""
        stripe = self.stripe_of(lock)
        return Spot(lock, stripe, stripe + CELL + (mark & self._bucket_bits), mark)

    def stripe_of(self, lock: i64) -> i64:
        return self._base + (lock - self.first_lock) * self._size

    def find(self, spot: Spot, use: bool = True) -> i64:
        """The entry of a name, which counts as used now unless it is only looked at."""
        cell = spot.cell
        if cell:  # where it was last, it is still, unless it has left since
            its: i64 = spot.line[MARK]
            if its == spot.known:
                return cell
        words, mark = self.words, spot.mark
        cell = words[spot.bucket]
        while cell:
            its = words[cell + MARK]
            if its >> _NAME == mark:
                if use and not its & _USED:
                    its |= _USED
                    words[cell + MARK] = its
                self._found(spot, cell, its)
                return cell
            head: i64 = words[cell]
            cell = head >> LINK
        return 0

    def glance(self, spot: Spot) -> i64:
        """``find`` without the lock: what is found may change meanwhile, and be another's by then.

        It writes nothing, and ends even if cells go from one list to another while it follows them.
        """
        cell = spot.cell
        if cell:
            its: i64 = spot.line[MARK]
            if its == spot.known:
                return cell
        words = self.words
        cell = words[spot.bucket]
        for _ in range(self.cells):
            if not cell:
                break
            its = words[cell + MARK]
            if its >> _NAME == spot.mark:
                self._found(spot, cell, its)
                return cell
            head: i64 = words[cell]
            cell = head >> LINK
        return 0

    def kind(self, cell: i64) -> i64:
        """Of what is in a cell; 0 if it is no entry."""
        head: i64 = self.words[cell]
        if not head & _ENTRY:
            return 0
        its: i64 = self.words[cell + MARK]
        return its & _KIND

    def change_kind(self, spot: Spot, kind: i64) -> None:
        line = spot.line
        its: i64 = line[MARK]
        its = its & ~_KIND | kind
        line[MARK] = its
        self._found(spot, spot.cell, its)

    def add(self, spot: Spot, kind: i64, owner: i64, now: i64) -> i64:
        """A new entry without chunks, its ``until`` and state not set. 0 if there is no room and nothing can leave."""
        words, stripe = self.words, spot.stripe
        self.locks.writes(spot.lock, STRUCTURE)
        cell = self.cell(stripe, now, 0)
        if not cell:
            return 0
        its = spot.mark << _NAME | kind
        words[cell + MARK] = its
        words[cell + OWNER] = owner
        words[cell + FIRST] = 0
        words[cell + LAST] = 0
        following: i64 = words[spot.bucket]
        words[cell] = following << LINK | _ENTRY
        words[spot.bucket] = cell
        entries: i64 = words[stripe + _ENTRIES]
        words[stripe + _ENTRIES] = entries + 1
        self._found(spot, cell, its)
        return cell

    def free_cell(self, stripe: i64) -> i64:
        """A cell that is free, as an entry's next chunk; 0 if the stripe is full."""
        words = self.words
        cell: i64 = words[stripe + _FREE]
        if cell:
            head: i64 = words[cell]
            words[stripe + _FREE] = head >> LINK
            return cell
        high: i64 = words[stripe + _HIGH]
        if high == self.cells:
            return 0
        words[stripe + _HIGH] = high + 1
        return stripe + self._first + high * CELL

    def give_cell(self, stripe: i64, cell: i64) -> None:
        """One that is not needed after all is free again."""
        self._free(stripe, cell, cell)

    def cell(self, stripe: i64, now: i64, keep: i64) -> i64:
        """A free cell, for which entries leave if the stripe is full, except ``keep``. 0 if none can leave."""
        cell = self.free_cell(stripe)
        if not cell and self._evict(stripe, now, keep):
            cell = self.free_cell(stripe)
        return cell

    def remove(self, stripe: i64, cell: i64) -> None:
        """Forget an entry. The caller has said that he writes the structure."""
        words = self.words
        its: i64 = words[cell + MARK]
        head: i64 = words[cell]
        before = stripe + CELL + (its >> _NAME & self._bucket_bits)
        at: i64 = words[before]
        if at == cell:
            words[before] = head >> LINK
        else:
            while at != cell:
                before = at
                link: i64 = words[before]
                at = link >> LINK
            words[before] = head
        if its & _KIND != COUNTER:
            self.free_chunks(stripe, cell)
        # Whoever remembers where the entry was must not take the cell for it.
        words[cell + MARK] = 0
        words[cell + OWNER] = 0
        self._free(stripe, cell, cell)
        entries: i64 = words[stripe + _ENTRIES]
        words[stripe + _ENTRIES] = entries - 1

    def free_chunks(self, stripe: i64, cell: i64) -> None:
        """Of an entry, all."""
        first: i64 = self.words[cell + FIRST]
        if first:
            last: i64 = self.words[cell + LAST]
            self._free(stripe, first & ~7, last & ~7)

    def free_before(self, stripe: i64, first: i64, kept: i64) -> None:
        """The chunks of a chain from the one at ``first`` on, up to and without that at ``kept``."""
        first, kept = first & ~7, kept & ~7
        while first != kept:
            head: i64 = self.words[first]
            self._free(stripe, first, first)
            first = head >> LINK

    def free_after(self, stripe: i64, kept: i64, last: i64) -> None:
        """The chunks of a chain after the one at ``kept``, up to and with that at ``last``."""
        kept, last = kept & ~7, last & ~7
        if kept != last:
            head: i64 = self.words[kept]
            self._free(stripe, head >> LINK, last)

    def entries(self, lock: i64, kind: i64) -> list[i64]:
        """The entries of a kind in a lock's stripe."""
        words, stripe = self.words, self.stripe_of(lock)
        first, high = stripe + self._first, words[stripe + _HIGH]
        heads = words[first : first + high * CELL : CELL].tolist()
        found = [first + at * CELL for at, head in enumerate(heads) if head & _ENTRY]
        return [cell for cell in found if words[cell + MARK] & _KIND == kind]

    def owners(self) -> dict[int, int]:
        """The number of entries of each owner. Read without locks: each number may be off by what changes meanwhile.

        It reads the whole table: a full one of 64 MiB takes 20 ms.
        """
        found: Counter[int] = Counter()
        for stripe in self._stripes():
            first, high = stripe + self._first, self.words[stripe + _HIGH]
            cells = self.words[first : first + high * CELL]
            heads, owners = cells[::CELL].tolist(), cells[OWNER::CELL].tolist()
            found.update(owner for head, owner in zip(heads, owners, strict=True) if head & _ENTRY)
        return dict(found)

    def sweep(self, lock: i64, now: i64) -> bool:
        """Remove what is over of the next ``SWEPT_AT_ONCE`` cells. Whether that was the last part of the stripe."""
        words, stripe = self.words, self.stripe_of(lock)
        at: i64 = words[stripe + _SWEPT]
        high: i64 = words[stripe + _HIGH]
        end = at + SWEPT_AT_ONCE
        if end > high:
            end = high
        while at < end:
            cell = stripe + self._first + at * CELL
            head: i64 = words[cell]
            if head & _ENTRY:
                until: i64 = words[cell + UNTIL]
                if until <= now:
                    self.locks.writes(lock, STRUCTURE)
                    self.remove(stripe, cell)
            at += 1
        words[stripe + _SWEPT] = at if at < high else 0
        if not words[stripe + _ENTRIES] and high:
            self._begin(lock)
            return True
        return at >= high

    def empty(self, lock: int, what: int) -> None:
        """A worker died while it wrote ``what``: an entry, or the structure, and then nothing of the stripe is left."""
        if what == STRUCTURE:
            self.clear(lock)
        elif self.kind(what) != PLACES:  # whose words are put right when the worker's are freed
            self.remove(self.stripe_of(lock), what)

    def clear(self, lock: i64) -> None:
        """Forget everything in a lock's stripe."""
        words, stripe = self.words, self.stripe_of(lock)
        self.locks.writes(lock, STRUCTURE)
        # Whoever remembers where an entry was must not take it for one.
        first, high = stripe + self._first, min(words[stripe + _HIGH], int(self.cells))
        for word in (0, MARK):
            words[first + word : first + word + high * CELL : CELL] = memoryview(bytes(8 * high)).cast("q")
        self._begin(lock)

    def next_cell(self, stripe: i64) -> i64:
        """The cell that the hand of CLOCK is at, which goes on to the next."""
        words = self.words
        hand: i64 = words[stripe + _HAND]
        words[stripe + _HAND] = hand + 1 if hand + 1 < self.cells else 0
        return stripe + self._first + hand * CELL

    def unuse(self, cell: i64) -> bool:
        """Whether an entry was used since this was called last."""
        its: i64 = self.words[cell + MARK]
        if not its & _USED:
            return False
        self.words[cell + MARK] = its & ~_USED
        return True

    def _begin(self, lock: i64) -> None:
        """Let every cell of a lock's stripe be one that was never used, as none is an entry."""
        stripe = self.stripe_of(lock)
        self.locks.writes(lock, STRUCTURE)
        self.words[stripe : stripe + self._first] = memoryview(bytes(8 * int(self._first))).cast("q")

    def _found(self, spot: Spot, cell: i64, its: i64) -> None:
        spot.kind = its & _KIND
        spot.known = its | _USED
        spot.until = 0
        if cell != spot.cell:
            spot.cell = cell
            spot.line = self.words[cell : cell + CELL]

    def _stripes(self) -> range:
        return range(self._base, self._base + self.stripes * self._size, self._size)

    def _free(self, stripe: i64, first: i64, last: i64) -> None:
        """A chain of cells. Their heads are none of entries from now on, as those of chunks never are."""
        words = self.words
        free: i64 = words[stripe + _FREE]
        words[last] = free << LINK
        words[stripe + _FREE] = first

    def _evict(self, stripe: i64, now: i64, keep: i64) -> bool:
        """Remove an entry that is over, or was not used since the hand came by last."""
        words = self.words
        spared: i64 = 0
        for _ in range(2 * self.cells):
            cell = self.next_cell(stripe)
            kind = self.kind(cell)
            if not kind or cell == keep:
                continue
            until: i64 = words[cell + UNTIL]
            if until > now and (kind == PLACES or (spared < _PATIENCE and self.unuse(cell))):
                spared += 1
                continue
            self.remove(stripe, cell)
            return True
        return False
