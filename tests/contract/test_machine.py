"""What a worker makes of the answers of all."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.machines import linked

from apigw.contract.machine import Answer, Machine
from apigw.errors import Overloaded


def test_who_is_alone_asks_itself() -> None:
    """And has its answer at once."""
    machine = Machine(7)
    machine.answers("double", lambda number: 2 * number)
    found: list[Any] = []
    machine.ask("double", 4).addCallback(found.extend)
    assert found == [Answer(0, 7, 8)]
    assert machine.apart(found) == (8, [])


def test_its_own_answer_is_told_apart() -> None:
    """From those of the others."""
    machines = linked(3)
    for machine in machines:
        machine.answers("who", partial(max, machine.index))
    found: list[Any] = []
    machines[1].ask("who", 0).addCallback(found.extend)
    assert machines[1].apart(found) == (1, [0, 2])


def test_without_its_own_answer_there_is_none() -> None:
    """Which services there are is for the worker that was asked to say: it is 503 if that hangs."""
    with pytest.raises(Overloaded):
        linked(2)[0].apart([Answer(1, 1001, "something")])
