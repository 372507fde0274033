"""What is there once for the gateway, and what its workers have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.turning import Turning

from apigw.config.model import Config
from apigw.process.machine import Siblings
from apigw.process.place import LOOKS_EVERY, Alone, Sharing
from apigw.process.reload import Progress
from apigw.process.signals import Signals
from apigw.process.sockets import Sockets
from apigw.shared.page import Page
from apigw.shared.slots import IN_FLIGHT

WORKERS = 2


class Scene:
    """The places of two workers, as each process would see its own, of which the first is the checker."""

    def __init__(self) -> None:
        self.reactor: Any = Turning()
        self.sockets = Sockets(Config().gateway)
        self.pages = [Page.make(WORKERS, 1 << 20)]
        self.pages.append(Page.open(os.dup(self.pages[0].descriptor)))
        self.counted: list[tuple[int, bool, bool]] = []
        self.machines = [Siblings(index, WORKERS, self.reactor) for index in range(WORKERS)]
        self.machines[0].checker_changed(True)
        self.places = [self._place(index) for index in range(WORKERS)]

    def _place(self, index: int) -> Sharing:
        page = self.pages[index]
        page.become(index, 1000 + index)
        return Sharing(self.reactor, self.machines[index], page, self.sockets)

    def reloading(self, index: int) -> Progress:
        def ended(succeeded: bool, counts: bool) -> None:
            self.counted.append((index, succeeded, counts))

        takes: Any = None
        return self.places[index].reloading(Signals(), "/", takes, ended, Config)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for page in made.pages:
        page.close()
    os.close(made.sockets.bell)


def test_every_worker_knows_how_the_masters_reload_went_and_one_counts_it(scene: Scene) -> None:
    told = [scene.reloading(index) for index in range(WORKERS)]
    of_master = Progress()
    of_master.runs = True
    for place in scene.places:
        place.reloads(of_master.told(), False)
    assert [each.runs for each in told] == [True, True]
    assert scene.counted == []
    of_master.runs, of_master.succeeded = False, True
    for place in scene.places:
        place.reloads(of_master.told(), place is scene.places[0])
    assert [(each.runs, each.succeeded) for each in told] == [(False, True), (False, True)]
    assert scene.counted == [(0, True, True), (1, True, False)]


def test_a_worker_that_comes_later_counts_no_reload(scene: Scene) -> None:
    scene.reloading(0)
    of_master = Progress()
    of_master.succeeded = False
    scene.places[0].reloads(of_master.told(), False)
    assert scene.counted == [(0, False, False)]


def test_the_sum_is_of_all_workers_or_of_the_one_that_is_alone(scene: Scene) -> None:
    first, second = (place.tally(IN_FLIGHT) for place in scene.places)
    alone = Alone(scene.reactor).tally(IN_FLIGHT)
    assert (first.add(2), second.add(3), alone.add(1)) == (2, 5, 1)


def test_a_worker_looks_at_what_others_have_found_out_and_one_alone_does_not(scene: Scene) -> None:
    looks: list[float] = []
    services = list(scene.places[0].services(lambda: looks.append(scene.reactor.seconds())))
    for service in services:
        service.startService()
    for _ in range(2):
        scene.reactor.advance(LOOKS_EVERY)
        scene.reactor.turn()
    for service in services:
        service.stopService()
    scene.reactor.advance(LOOKS_EVERY)
    scene.reactor.turn()
    assert looks == [0.0, LOOKS_EVERY, 2 * LOOKS_EVERY]
    assert list(Alone(scene.reactor).services(looks.clear)) == []
