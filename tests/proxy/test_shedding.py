"""When a late reactor refuses new requests, and when it takes them again."""

from __future__ import annotations

import pytest
from support.logged import logged
from twisted.internet.task import Clock

from apigw.proxy.shedding import Shedding
from apigw.wire.deadlines import Deadlines


class Scene:
    """A reactor whose turns last as long as the test says."""

    def __init__(self, most: float | None = 1.0) -> None:
        self.most = most
        self.late = False
        self.clock = Clock()
        self._shedding = Shedding(self._set, lambda: self.most)
        deadlines = Deadlines(self.clock)
        deadlines.observe_lag = self._shedding.observe
        deadlines.start()

    def turns(self, *seconds: float) -> list[bool]:
        """Whether requests are refused after each."""
        after = []
        for each in seconds:
            self.clock.advance(each)
            after.append(self.late)
        return after

    def _set(self, late: bool) -> None:
        assert late != self.late
        self.late = late


def test_a_lag_that_stays_refuses_and_one_that_is_gone_accepts() -> None:
    """From the third late sample in a row, to the first that is in time."""
    assert Scene().turns(1.2, 1.2, 3, 2, 0.1, 1.2, 1.2) == [False, False, True, True, False, False, False]


@pytest.mark.parametrize("long", [1.2, 60])
def test_one_long_turn_refuses_nothing(long: float) -> None:
    """A collection, a reload, a paused machine, and what arrived in that time: it is answered, however often."""
    assert not any(Scene().turns(*(long, 1.2, 0.1) * 5))


def test_a_lag_of_the_maximum_refuses_nothing() -> None:
    scene = Scene(most=0.5)
    assert not any(scene.turns(0.6, 0.6, 0.6, 0.6))
    assert scene.turns(0.625, 0.625, 0.625) == [False, False, True]


def test_no_maximum_refuses_nothing() -> None:
    assert not any(Scene(most=None).turns(60, 60, 60))


def test_a_reload_changes_the_maximum_at_the_next_sample() -> None:
    scene = Scene(most=None)
    scene.turns(2)
    scene.most = 1.0
    assert scene.turns(2, 2, 2) == [False, False, True]
    scene.most = None
    assert scene.turns(2) == [False]


def test_beginning_and_end_are_logged_once() -> None:
    scene = Scene()
    with logged() as events:
        scene.turns(2, 2, 2, 2, 2, 0.1, 0.1)
    assert [event["log_level"].name for event in events] == ["warn", "info"]
    assert [round(event["lag"], 1) for event in events] == [1.9, 0.0]
