"""The shared page: who has it, and what a program of another layout is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.forked import child

from apigw.shared import page as module
from apigw.shared.page import LayoutChanged, Page
from apigw.shared.slots import CONNECTIONS

OPENS = """
import sys
from apigw.shared.page import Page
page = Page.open(int(sys.argv[1]))
assert page.slots.get(1, 2) == 5
print(page.workers, page.limits_memory, page.secret.hex(), page.locks.take(3))
page.slots.put(1, 2, 6)
page.close()
"""


def test_a_forked_process_has_it(page: Page) -> None:
    """What a worker writes, all read."""

    def work(so_far: object) -> None:
        page.become(1, os.getpid())
        page.slots.put(1, CONNECTIONS, 7)

    with child(work) as worker:
        assert worker.wait() == 0
    assert page.slots.total(CONNECTIONS) == 7
    assert page.worker == 0


def test_an_executed_program_has_it(page: Page) -> None:
    """By the number of the descriptor: numbers, secret and locks are where they were, at another address."""
    page.slots.claim(1, 1)
    page.slots.put(1, CONNECTIONS, 5)
    page.locks.take(3)
    command = [sys.executable, "-c", OPENS, str(page.descriptor)]
    said = subprocess.run(command, pass_fds=[page.descriptor], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["2", str(1024 * 1024), page.secret.hex(), "False"]
    assert page.slots.get(1, CONNECTIONS) == 6
    page.locks.give_back(3)


def test_a_program_of_another_layout_does_not_use_it(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can begin with an empty one."""
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(LayoutChanged):
        Page.open(page.descriptor)
    descriptor = os.memfd_create("empty")
    with pytest.raises(LayoutChanged):
        Page.open(descriptor)
    os.close(descriptor)


def test_nobody_makes_it_shorter(page: Page) -> None:
    """That would kill every worker."""
    with pytest.raises(OSError):
        os.ftruncate(page.descriptor, 4096)


def test_each_page_has_a_secret_of_its_own(page: Page) -> None:
    """Who knows one gateway's cannot choose keys that collide in another's."""
    other = Page.make(1, 1024 * 1024)
    assert len(other.secret) == 32
    assert other.secret != page.secret
    other.close()


def test_closed_pages_give_everything_back() -> None:
    """Descriptor and memory."""
    before = os.listdir("/proc/self/fd")
    Page.make(2).close()
    assert os.listdir("/proc/self/fd") == before
