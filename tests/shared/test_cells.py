"""Cells by name: one for each, the same for all workers, and free again when nobody uses them."""

from __future__ import annotations

import os

import pytest
from support.forked import child

from apigw.shared.cells import FIRST, FORGOTTEN, Cells
from apigw.shared.page import Page

COUNT = 8


@pytest.fixture
def cells(page: Page) -> Cells:
    """A few, where the limits would be."""
    size = 16
    return Cells(page.words, page.size // 8 - COUNT * size, COUNT, size, page.locks, 400, 2, page.secret)


def test_a_name_has_one_cell(cells: Cells) -> None:
    found = {name: cells.claim(name, 0) for name in (b"a", b"b", b"c")}
    assert len(set(found.values())) == 3
    cells.words[found[b"a"] + FIRST] = 7
    assert {name: cells.claim(name, 1) for name in found} == found
    assert cells.words[found[b"a"] + FIRST] == 7


def test_workers_find_the_same(page: Page, cells: Cells) -> None:
    """Also at the same time."""
    names = [b"%d" % number for number in range(COUNT)]

    def look(_: object) -> None:
        page.become(1, os.getpid())
        for at, name in enumerate(reversed(names)):
            page.slots.put(1, 10 + at, cells.claim(name, 0))

    with child(look) as other:
        ours = [cells.claim(name, 0) for name in names]
        assert other.wait() == 0
    assert [page.slots.get(1, 10 + at) for at in range(COUNT)] == ours[::-1]
    assert len(set(ours)) == COUNT


def test_what_nobody_uses_becomes_anothers(cells: Cells) -> None:
    """Empty, and only when there is no other; what is in use stays."""
    found = [cells.claim(b"%d" % number, 0) for number in range(COUNT)]
    assert cells.claim(b"new", FORGOTTEN) == 0
    cells.words[found[3] + FIRST] = 7
    for number, cell in enumerate(found):
        if number != 3:
            cells.use(cell, 100)
    assert cells.claim(b"new", FORGOTTEN + 1) == found[3]
    assert cells.words[found[3] + FIRST] == 0
    assert cells.claim(b"3", FORGOTTEN + 1) == 0
    assert cells.claim(b"4", FORGOTTEN + 1) == found[4]


def test_a_forgotten_cell_is_new_for_who_asks_again(cells: Cells) -> None:
    """A service that comes back after an hour does not find its circuit as it was."""
    cell = cells.claim(b"a", 0)
    cells.words[cell + FIRST] = 7
    assert cells.claim(b"a", FORGOTTEN + 1) == cell
    assert cells.words[cell + FIRST] == 0


def test_who_cannot_have_the_lock_has_no_cell(page: Page, cells: Cells) -> None:
    """Another worker hangs with it."""
    assert page.locks.take(400)
    assert cells.claim(b"a", 0) == 0
    page.locks.give_back(400)
    assert cells.claim(b"a", 0)
