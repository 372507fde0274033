"""How many connections an address has with all workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from apigw.process.crowd import SharedCrowd
from apigw.shared.page import Page

CLIENT, OTHER = b"192.0.2.1", b"192.0.2.2"


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(2, 1 << 20)
    for worker in (0, 1):
        page.become(worker, os.getpid())
    yield page


@pytest.fixture
def crowds(page: Page) -> tuple[SharedCrowd, SharedCrowd]:
    """Those of two workers."""
    return SharedCrowd(page, 0, lambda: 1000.0), SharedCrowd(page, 1, lambda: 1000.0)


Crowds = tuple[SharedCrowd, SharedCrowd]


def test_those_of_all_workers_count(crowds: Crowds) -> None:
    """Each worker knows how many there are, until they end."""
    one, other = crowds
    for crowd, client in ((one, CLIENT), (other, CLIENT), (other, CLIENT), (other, OTHER)):
        crowd.came(client)
    assert [crowd.has(client) for crowd in crowds for client in (CLIENT, OTHER)] == [3, 1, 3, 1]
    other.left(CLIENT)
    one.left(CLIENT)
    assert [one.has(CLIENT), other.has(CLIENT)] == [1, 1]
    other.left(CLIENT)
    assert one.has(CLIENT) == 0


def test_those_of_this_machine_do_not_count(crowds: Crowds) -> None:
    """Nor those of a unix socket, as with one worker."""
    for peer in (b"127.0.0.1", b"::1", b"unix:"):
        crowds[0].came(peer)
        assert crowds[0].has(peer) == 0
        crowds[0].left(peer)


def test_those_of_a_worker_that_died_are_gone(page: Page, crowds: Crowds) -> None:
    """Its connections ended with it."""
    one, other = crowds
    one.came(CLIENT)
    other.came(CLIENT)
    page.died(1)
    assert one.has(CLIENT) == 1


def test_what_could_not_be_counted_is_made_up_for(page: Page, crowds: Crowds) -> None:
    """A lock that is not to be had in time turns nobody away, and the next connection of the client counts both."""
    one, other = crowds
    lock = page.limits.spot(b"connections\0" + b"4" + bytes([192, 0, 2, 1])).lock
    other.came(CLIENT)
    assert page.locks.take(lock)
    one.came(CLIENT)
    assert one.has(CLIENT) == 0
    page.locks.give_back(lock)
    one.came(CLIENT)
    assert one.has(CLIENT) == 3
    assert page.locks.take(lock)
    one.left(CLIENT)
    page.locks.give_back(lock)
    one.left(CLIENT)
    assert one.has(CLIENT) == 1


def test_nobody_is_turned_away_for_what_could_not_be_counted(page: Page, crowds: Crowds) -> None:
    """A client that may have one connection, whose end was not counted, has none when it comes again."""
    one, other = crowds
    lock = page.limits.spot(b"connections\0" + b"4" + bytes([192, 0, 2, 1])).lock
    one.came(CLIENT)
    assert page.locks.take(lock)
    one.left(CLIENT)
    page.locks.give_back(lock)
    assert [one.has(CLIENT), other.has(CLIENT)] == [0, 0]
