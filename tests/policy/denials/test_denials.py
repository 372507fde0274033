"""Denials on all workers and gateways: over the page of memory and a real Redis. The clock is the test's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from attrs import evolve
from prometheus_client import CollectorRegistry
from support import redis_server
from support.awaiting import until, wait_for, waiting
from support.machines import Linked, linked
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from apigw.config.model import Redis
from apigw.contract.machine import Answer, Machine
from apigw.errors import Overloaded
from apigw.policy.denials.denial import MOST, Denial, denial
from apigw.policy.denials.denials import AGAIN, Denials
from apigw.policy.denials.in_redis import InRedis
from apigw.policy.denials.lasting import Lasting
from apigw.policy.denials.series import DenialSeries
from apigw.policy.denials.store import Full, InPage, InProcess, Store
from apigw.policy.denials.watch import Watch
from apigw.process.machine import Siblings
from apigw.redis.link import RedisLink
from apigw.shared.locks import STRUCTURE
from apigw.shared.page import STRIPES, Page

reactor: Any = global_reactor


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(2, 1024 * 1024)
    page.become(0, 1)
    yield page
    page.close()


class Worker:
    """One worker of a gateway."""

    def __init__(self, store: Store, machine: Machine | None = None, link: RedisLink | None = None) -> None:
        self.clock: Any = Clock()
        self.clock.advance(time.time())
        self.registry = CollectorRegistry()
        series = DenialSeries(self.registry, link is not None)
        self.watch = Watch(series.denied)
        self.lasting = Lasting(self.watch, lambda: (), lambda review: None)
        redis = None if link is None else InRedis(link)
        machine = machine or Machine(1)
        rest = (store, redis, self.watch, self.lasting, series)
        self.denials = Denials(self.clock, self.clock.seconds, machine, *rest)
        self.denials.start()

    def address(self, value: str, seconds: float = 60) -> Denial:
        return denial("address", value, None, seconds, "", self.clock.seconds())

    def refuses(self, address: str) -> bool:
        ranges = self.watch.addresses
        return ranges is not None and ranges.holds(address.encode())

    def look(self) -> None:
        self.clock.advance(1.0)

    def up(self) -> float | None:
        return self.registry.get_sample_value("gateway_denials_store_up")


class Taken(InProcess):
    """One whose lock another process has at the next ``times`` looks."""

    times = 0

    def all(self) -> Mapping[bytes, Denial]:
        if self.times:
            self.times -= 1
            raise Full
        return super().all()


def test_who_denies_is_answered_when_all_know() -> None:
    """A worker that cannot read at once answers when it has read."""
    worker = Worker(store := Taken())
    store.times = 2
    told: list[Any] = []
    worker.denials.add(worker.address("192.0.2.7")).addCallback(told.append)
    worker.clock.advance(AGAIN)
    assert not told and not worker.refuses("192.0.2.7")
    worker.clock.advance(AGAIN)
    assert told and worker.refuses("192.0.2.7")


def test_who_starts_knows_them_before_it_serves() -> None:
    """Also where another process has the lock just then."""
    store = Taken()
    Worker(store).denials.add(Worker(store).address("192.0.2.7"))
    store.times = 2
    assert Worker(store).refuses("192.0.2.7")


def test_what_was_denied_while_a_worker_joined_is_known_when_it_has(page: Page) -> None:
    """It has read what was denied before it started, and nobody could tell it of what came then."""
    siblings = Siblings(1, 2, Clock())
    first, second = Worker(InPage(page)), Worker(InPage(page), siblings)
    first.denials.add(first.address("192.0.2.7"))
    assert not second.refuses("192.0.2.7")
    siblings.joined()
    assert second.refuses("192.0.2.7")


class OneSilent(Machine):
    """Another worker, which does not answer."""

    def ask(self, question: str, argument: Any = None, silent: bool = False) -> Deferred[list[Answer]]:
        others = [Answer(1, 1001, None)] if silent else []
        return super().ask(question, argument).addCallback(lambda own: own + others)


@waiting
def test_who_denies_learns_of_workers_that_do_not_answer() -> None:
    """They may let the caller pass a little longer; those that answer are not among them."""
    for machine, late in ((OneSilent(1), 1), (Machine(1), 0)):
        worker = Worker(InProcess(), machine)
        _, told = wait_for(worker.denials.add(worker.address("192.0.2.7")))
        assert (told.cut, told.late) == (0, late)


@waiting
def test_in_one_process() -> None:
    """A denial holds at once, to its end, or until it is removed; the same again replaces it."""
    worker = Worker(InProcess())
    wait_for(worker.denials.add(worker.address("192.0.2.7", 10)))
    wait_for(worker.denials.add(worker.address("192.0.2.8", 20)))
    assert worker.refuses("192.0.2.7") and worker.refuses("192.0.2.8") and not worker.refuses("192.0.2.9")
    wait_for(worker.denials.add(worker.address("192.0.2.7", 30)))
    assert len(worker.denials.listed()) == 2
    worker.clock.advance(20)
    assert worker.refuses("192.0.2.7") and not worker.refuses("192.0.2.8")
    assert [each.value for each in worker.denials.listed()] == ["192.0.2.7"]
    assert wait_for(worker.denials.remove(worker.address("192.0.2.7"))) is True
    assert wait_for(worker.denials.remove(worker.address("192.0.2.7"))) is False
    assert not worker.refuses("192.0.2.7") and worker.watch.addresses is None
    assert worker.registry.get_sample_value("gateway_denials", {"kind": "address"}) == 0
    worker.denials.stop()
    assert not worker.clock.getDelayedCalls()


@waiting
@pytest.mark.parametrize("shared", [False, True])
def test_there_is_an_end(page: Page, shared: bool) -> None:
    """So many hold at a time; one more is refused, and what is denied stays denied."""
    store: Store = InPage(page) if shared else InProcess()
    worker = Worker(store)
    store.put([worker.address(f"10.{number >> 8}.{number & 255}.1") for number in range(MOST)])
    with pytest.raises(Overloaded):
        wait_for(worker.denials.add(worker.address("192.0.2.7")))
    wait_for(worker.denials.add(worker.address("10.0.1.1", 120)))
    assert len(worker.denials.listed()) == MOST and worker.refuses("10.15.255.1")


@waiting
def test_over_workers(page: Page) -> None:
    """What one worker is told all refuse; and those that come later, or have not heard of it."""
    all: list[Linked] = linked(2)
    first, second = Worker(InPage(page), all[0]), Worker(InPage(page), all[1])
    wait_for(first.denials.add(first.address("192.0.2.7")))
    assert first.refuses("192.0.2.7") and second.refuses("192.0.2.7")
    assert Worker(InPage(page)).refuses("192.0.2.7")
    InPage(page).put([first.address("192.0.2.8")])
    second.look()
    assert second.refuses("192.0.2.8")
    wait_for(second.denials.remove(second.address("192.0.2.7")))
    assert not first.refuses("192.0.2.7") and not second.refuses("192.0.2.7")


@waiting
def test_after_a_worker_that_died_while_it_wrote(page: Page) -> None:
    """The page has none then; the others know them still, and put them back for those that come."""
    worker = Worker(InPage(page))
    wait_for(worker.denials.add(worker.address("192.0.2.7")))
    page.locks.take(STRIPES + 3)
    page.locks.writes(STRIPES + 3, STRUCTURE)
    page.died(0)
    page.become(0, 1)
    assert not InPage(page).all() and worker.refuses("192.0.2.7")
    worker.look()
    assert worker.refuses("192.0.2.7") and Worker(InPage(page)).refuses("192.0.2.7")


@waiting
def test_a_lock_that_is_not_to_be_had(page: Page) -> None:
    """What holds goes on to hold, and is read again a moment later; a new denial is 503."""
    worker = Worker(InPage(page))
    wait_for(worker.denials.add(worker.address("192.0.2.7")))
    other = Worker(InPage(page))
    InPage(page).put([worker.address("192.0.2.8")])
    page.locks.take(STRIPES + 3)
    other.look()
    with pytest.raises(Overloaded):
        wait_for(worker.denials.add(worker.address("192.0.2.9")))
    assert other.refuses("192.0.2.7") and not other.refuses("192.0.2.8")
    page.locks.give_back(STRIPES + 3)
    other.clock.advance(0.05)
    assert other.refuses("192.0.2.8")


def test_a_lock_that_stays_taken() -> None:
    """While the page cannot be read there is one try at a time, however long it takes."""
    worker = Worker(store := Taken())
    store.times, store.changed = 10_000, lambda: True  # type: ignore[method-assign]
    before = len(worker.clock.getDelayedCalls())
    for _ in range(10):
        worker.look()
    assert len(worker.clock.getDelayedCalls()) <= before + 1


@pytest.fixture
def server() -> Iterator[redis_server.RedisServer]:
    with redis_server.running() as server:
        yield server


class Gateway(Worker):
    """A gateway with one worker, and a link to Redis of its own."""

    def __init__(self, server: redis_server.RedisServer) -> None:
        self.link = RedisLink(Redis(server.url, timeout=2.0), reactor)
        wait_for(self.link.start())
        super().__init__(InProcess(), link=self.link)

    def look(self) -> None:
        """Until it has looked: what it waits for is real."""
        before = self.denials._looking
        until(lambda: before.call is not None)
        self.clock.advance(1.0)
        until(lambda: before.call is not None)

    def leave(self) -> None:
        self.denials.stop()
        wait_for(self.link.stop())


@waiting
def test_over_gateways(server: redis_server.RedisServer) -> None:
    """What one gateway is told all refuse after their next look; so with what is removed. A new one knows it too."""
    one, other = Gateway(server), Gateway(server)
    made, _ = wait_for(one.denials.add(one.address("192.0.2.7")))
    assert made.everywhere and one.refuses("192.0.2.7")
    other.look()
    assert other.refuses("192.0.2.7") and other.denials.listed()[0].everywhere
    late = Gateway(server)
    late.look()
    assert late.refuses("192.0.2.7")
    assert wait_for(other.denials.remove(other.address("192.0.2.7"))) is True
    for _ in range(4):  # what is young might have been added since Redis was read
        one.look()
    assert not one.refuses("192.0.2.7") and not other.refuses("192.0.2.7")
    for each in (one, other, late):
        each.leave()


class Second(Machine):
    """A worker that does not check."""

    checks = False


@waiting
def test_a_worker_that_starts_does_not_wait_for_its_first_look(server: redis_server.RedisServer, page: Page) -> None:
    """Whether it is the one that checks or not, it asks Redis at once, and all workers know what it is told."""
    one = Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7")))
    link = RedisLink(Redis(server.url, timeout=2.0), reactor)
    wait_for(link.start())
    second = Worker(InPage(page), Second(2), link)
    until(lambda: second.refuses("192.0.2.7"))
    assert Worker(InPage(page)).refuses("192.0.2.7")
    second.denials.stop()
    wait_for(link.stop())
    one.leave()


@waiting
def test_redis_away(server: redis_server.RedisServer) -> None:
    """What is known goes on to hold, here a new one does, and none can be removed. Later all gateways have all."""
    one, other = Gateway(server), Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7")))
    other.look()
    server.kill()
    until(lambda: not one.link.up and not other.link.up)
    made, _ = wait_for(one.denials.add(one.address("192.0.2.8")))
    one.look()
    other.look()
    assert not made.everywhere and one.refuses("192.0.2.7") and one.refuses("192.0.2.8") and other.refuses("192.0.2.7")
    assert (one.up(), one.denials.store_up) == (0, False)
    with pytest.raises(Overloaded):
        wait_for(one.denials.remove(one.address("192.0.2.7")))
    server.start()  # it has lost what it held
    until(lambda: one.link.up and other.link.up)
    for each in (one, other, one):
        each.look()
    assert other.refuses("192.0.2.7") and other.refuses("192.0.2.8") and one.up() == 1
    assert all(each.everywhere for each in one.denials.listed())
    for each in (one, other):
        each.leave()


@waiting
def test_what_is_removed_does_not_come_back(server: redis_server.RedisServer) -> None:
    """The last denial is removed; a gateway that was away meanwhile does not take that for a loss of Redis' data."""
    one, other = Gateway(server), Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7", 600)))
    other.look()
    wait_for(one.denials.remove(one.address("192.0.2.7")))
    assert server("EXISTS", "apigw:denials:1") == 0
    assert server("PTTL", "apigw:denials:1:mark") > 600_000
    for _ in range(5):
        other.look()
    assert not other.refuses("192.0.2.7")
    for each in (one, other):
        each.leave()


@waiting
def test_what_is_over_takes_no_room_in_redis(server: redis_server.RedisServer) -> None:
    """Thousands of denials that have ended do not keep the next one from all gateways; one that holds stays."""
    one = Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7", 600)))
    ended = [evolve(one.address(f"10.{number >> 8}.{number & 255}.1"), until=1e9) for number in range(MOST - 1)]
    server("HSET", "apigw:denials:1", *(word for each in ended for word in (each.name, each.packed())))
    other = Gateway(server)
    other.look()
    until(lambda: server("HLEN", "apigw:denials:1") == 1)
    made, _ = wait_for(other.denials.add(other.address("192.0.2.8")))
    assert made.everywhere and other.refuses("192.0.2.7")
    for each in (one, other):
        each.leave()


@waiting
def test_no_wrong_clock_removes_a_denial(server: redis_server.RedisServer) -> None:
    """A gateway that is a day ahead takes a denial for over; for all others it goes on to hold."""
    one, ahead = Gateway(server), Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7", 600)))
    ahead.clock.advance(86_400)
    for _ in range(3):
        ahead.look()
        one.look()
    assert one.refuses("192.0.2.7") and server("HLEN", "apigw:denials:1") == 1
    for each in (one, ahead):
        each.leave()


@waiting
def test_garbage_in_redis(server: redis_server.RedisServer) -> None:
    """What somebody else has written there denies nobody, and the rest holds."""
    one, other = Gateway(server), Gateway(server)
    wait_for(one.denials.add(one.address("192.0.2.7")))
    server("HSET", "apigw:denials:1", "x", "garbage")
    server("HSET", "apigw:denials:1", "y", one.address("192.0.2.0/24").packed())
    other.look()
    assert other.refuses("192.0.2.7") and not other.refuses("192.0.2.8")
    for each in (one, other):
        each.leave()
