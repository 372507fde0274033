"""Tables of the shared page: what is found, what leaves when there is no room, and what a death empties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigw.shared.locks import STRUCTURE
from apigw.shared.page import Page
from apigw.shared.spot import Spot
from apigw.shared.table import COUNTER, LAST, PLACES, STATE, UNTIL, Table

SOON, LATE = 10, 1_000


@pytest.fixture
def table(page: Page) -> Table:
    return page.limits


def put(table: Table, spot: Spot, kind: int = COUNTER, until: int = LATE, now: int = 0) -> int:
    assert table.locks.take(spot.lock)
    cell: int = table.add(spot, kind, 7, now)
    if cell:
        table.words[cell + UNTIL] = until
        table.words[cell + STATE] = 1
    table.locks.give_back(spot.lock)
    return cell


def spots(table: Table, number: int, of: str = "") -> list[Spot]:
    """So many names, all in the stripe of the first lock."""
    found: list[Spot] = []
    at = 0
    while len(found) < number:
        spot = table.spot(f"{of}{at}".encode())
        if spot.lock == table.first_lock:
            found.append(spot)
        at += 1
    return found


def there(table: Table, names: list[Spot]) -> list[bool]:
    return [bool(table.find(spot, False)) for spot in names]


def test_a_name_is_found_where_it_was_put(table: Table) -> None:
    """Each has an entry of its own, in all stripes alike; others have none."""
    names = [table.spot(b"%d" % number) for number in range(1_000)]
    cells = [put(table, spot) for spot in names]
    assert [table.find(spot) for spot in names] == cells
    assert len(set(cells)) == len(table) == 1_000
    assert not table.find(table.spot(b"x"))
    assert len({spot.lock for spot in names}) == 64
    assert table.owners() == {7: 1_000}


def test_where_a_name_is_depends_on_the_secret(page: Page) -> None:
    """Nobody outside can choose names that meet in one stripe."""
    other = Page.make(1, 1024 * 1024)
    names = [b"%d" % number for number in range(50)]
    assert [page.limits.spot(name).lock for name in names] != [other.limits.spot(name).lock for name in names]
    other.close()


def test_too_small_a_table_is_refused() -> None:
    with pytest.raises(ValueError):
        Page.make(1, 8 * 1024)


def test_the_longest_unused_leave(table: Table) -> None:
    """What was used since the hand came by stays; what is over leaves even so; places stay whatever happens."""
    cells = table.cells
    names = spots(table, cells, "first ")
    for at, spot in enumerate(names):
        put(table, spot, PLACES if at == 5 else COUNTER, SOON if at == 0 else LATE)
    kept = [0, 1, 2, 5]
    for at in kept[:3]:
        table.find(names[at])
    new = spots(table, 20, "new ")
    for spot in new:
        assert put(table, spot, now=SOON)
    assert all(there(table, new))
    assert [at for at, is_there in enumerate(there(table, names[:23])) if is_there] == [1, 2, 5]
    assert len(table) == cells


def test_a_table_full_of_places_has_no_room(table: Table) -> None:
    """They are of exchanges that run: who comes is told so."""
    names = spots(table, table.cells + 1)
    assert all(put(table, spot, PLACES) for spot in names[:-1])
    assert not put(table, names[-1])
    assert all(there(table, names[:-1]))


def test_the_search_for_one_to_leave_has_a_bound(table: Table) -> None:
    """Where all are in use, one of them leaves after some have been passed by."""
    names = spots(table, table.cells)
    for spot in names:
        put(table, spot)
        table.find(spot)
    assert put(table, spots(table, 1, "new ")[0])
    assert there(table, names).count(False) == 1


def test_sweeping_removes_what_is_over(table: Table) -> None:
    """Of one stripe, in parts; one in which nothing is left begins anew."""
    names = spots(table, 200)
    for at, spot in enumerate(names):
        put(table, spot, until=SOON if at % 2 else LATE)
    for now, left in ((SOON - 1, 200), (SOON, 100), (LATE, 0)):
        table.locks.take(table.first_lock)
        while not table.sweep(table.first_lock, now):
            pass
        table.locks.give_back(table.first_lock)
        assert there(table, names).count(True) == len(table) == left
    assert not table.entries(table.first_lock, 0)


@pytest.mark.parametrize("what", ["entry", "structure"])
def test_what_a_dead_worker_was_writing_is_emptied(page: Page, table: Table, what: str) -> None:
    """An entry alone, or all of its stripe, which can be used again then; other stripes are as they were."""
    names = [table.spot(b"%d" % number) for number in range(500)]
    cells = [put(table, spot) for spot in names]
    page.locks.worker = 1
    table.locks.take(names[0].lock)
    table.locks.writes(names[0].lock, cells[0] if what == "entry" else STRUCTURE)
    page.locks.worker = 0
    assert page.died(1).locks == [(names[0].lock, cells[0] if what == "entry" else STRUCTURE)]
    gone = [spot for spot, is_there in zip(names, there(table, names), strict=True) if not is_there]
    of_stripe = [spot for spot in names if spot.lock == names[0].lock]
    assert gone == ([names[0]] if what == "entry" else of_stripe)
    assert len(table) == 500 - len(gone)
    assert put(table, names[0])
    assert table.find(names[0])


STEP = st.tuples(
    st.sampled_from(["put", "remove", "lengthen", "find", "sweep"]), st.integers(0, 60), st.integers(0, 40)
)


def test_nothing_is_lost_and_nothing_is_kept(page: Page, table: Table) -> None:
    """Whatever comes and goes, the cells of entries and chunks and the free ones are all that there are."""
    names = spots(table, 61)
    lock = table.first_lock

    def free() -> int:
        words, stripe = table.words, table.stripe_of(lock)
        number, at = table.cells - words[stripe + 1], words[stripe]
        while at:
            number, at = number + 1, words[at] >> 8
        return number

    @settings(max_examples=100, deadline=None)
    @given(st.lists(STEP, max_size=80))
    def holds(steps: list[Any]) -> None:
        table.locks.take(lock)
        table.clear(lock)
        known: dict[int, tuple[int, int]] = {}
        for kind, at, number in steps:
            spot = names[at]
            cell = table.find(spot)
            assert bool(cell) == (at in known)
            if kind == "put" and not cell:
                cell = table.add(spot, PLACES, 1, 0)
                table.words[cell + UNTIL] = number
                known[at] = (0, number)
            elif kind == "remove" and cell:
                table.remove(spot.stripe, cell)
                del known[at]
            elif kind == "lengthen" and cell:
                chunk = table.cell(spot.stripe, 0, cell)
                last = table.words[cell + LAST]
                table.words[chunk] = 0
                table.words[last or cell + LAST - 1] = chunk << 8 if last else chunk
                table.words[cell + LAST] = chunk
                known[at] = (known[at][0] + 1, known[at][1])
            elif kind == "sweep":
                while not table.sweep(lock, number):
                    pass
                known = {at: kept for at, kept in known.items() if kept[1] > number}
            assert free() == table.cells - sum(1 + chunks for chunks, _ in known.values())
            assert len(table) == len(known)
            # Whoever remembers where a name was finds what one does who looks for the first time.
            for spot in names:
                assert table.find(spot, False) == table.find(table.spot_of(lock, spot.mark), False)
        table.locks.give_back(lock)

    holds()
