"""Names are looked up in threads of their own: shared, bounded, given up in time, and the last good answer is kept."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from queue import Queue
from threading import Event
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.logged import logged
from support.waiting import PATIENCE as ENOUGH
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from apigw.ops.metrics import LookupSeries
from apigw.upstream.resolver import GIVE_UP, KEPT_FOR, PATIENCE, SLOW_THREADS, THREADS, Resolver


class Reactor(Clock):
    """A clock that the test moves; what threads hand over runs when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: Queue[tuple[Callable[..., object], tuple[Any, ...]]] = Queue()

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self.handed.put((call, arguments))

    def take(self, times: int = 1) -> None:
        for _ in range(times):
            call, arguments = self.handed.get(timeout=ENOUGH)
            call(*arguments)


class Asked:
    """One who asks. ``found`` is None until there is an answer."""

    def __init__(self) -> None:
        self.found: list[Any] | None = None
        self._found: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        self.resolution = resolution

    def addressResolved(self, address: Any) -> None:
        self._found.append(address)

    def resolutionComplete(self) -> None:
        assert self.found is None
        self.found = self._found

    @property
    def hosts(self) -> list[str] | None:
        return None if self.found is None else [address.host for address in self.found]


class Scene:
    """A name server whose answers are lists of addresses, errors, or events to wait for first."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.registry = CollectorRegistry()
        self.names: dict[str, Any] = {}
        self.looked_up: list[str] = []
        self.resolver = Resolver(self.reactor, LookupSeries(self.registry), self.getaddrinfo)
        self.resolver.start()
        self.hanging: list[Event] = []

    def getaddrinfo(self, host: str, port: int, family: int, kind: int) -> list[tuple[Any, ...]]:
        self.looked_up.append(host)
        answer = self.names[host]
        if isinstance(answer, Event):
            answer.wait(ENOUGH)
            answer = []
        if isinstance(answer, Exception):
            raise answer
        return [
            (socket.AF_INET6, kind, 6, "", (each, 0, 0, 0)) if ":" in each else (socket.AF_INET, kind, 6, "", (each, 0))
            for each in answer
        ]

    def hang(self, host: str) -> Event:
        event = self.names[host] = Event()
        self.hanging.append(event)
        return event

    def ask(self, host: str) -> Asked:
        asked = Asked()
        self.resolver.resolveHostName(asked, host, 8080)  # type: ignore[arg-type]  # has all that it calls
        return asked

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for event in scene.hanging:
        event.set()
    scene.resolver.stop()
    assert scene.reactor.getDelayedCalls() == []


def test_addresses_come_in_their_order(scene: Scene) -> None:
    """Both families, with the port that was asked for."""
    scene.names["a.test"] = ["2001:db8::1", "192.0.2.1"]
    asked = scene.ask("a.test")
    scene.reactor.take()
    assert asked.found == [IPv6Address("TCP", "2001:db8::1", 8080), IPv4Address("TCP", "192.0.2.1", 8080)]
    assert scene.count("gateway_dns_lookups_total", result="success") == 1


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_addresses_are_not_looked_up(scene: Scene, address: str) -> None:
    assert scene.ask(address).hosts == [address]
    assert scene.looked_up == []


def test_a_name_is_looked_up_anew_each_time(scene: Scene) -> None:
    """A change is seen by the next connection."""
    for address in ("192.0.2.1", "192.0.2.2"):
        scene.names["a.test"] = [address]
        asked = scene.ask("a.test")
        assert asked.hosts is None
        scene.reactor.take()
        assert asked.hosts == [address]


def test_all_who_ask_at_once_share_a_lookup(scene: Scene) -> None:
    scene.names["a.test"] = ["192.0.2.1"]
    asked = [scene.ask("a.test") for _ in range(100)]
    scene.reactor.take()
    assert {tuple(each.hosts or ()) for each in asked} == {("192.0.2.1",)}
    assert scene.looked_up == ["a.test"]


@pytest.mark.parametrize(
    "failure", [socket.gaierror(socket.EAI_AGAIN, "try again"), UnicodeError("label too long"), []]
)
def test_a_name_without_addresses_has_none(scene: Scene, failure: Any) -> None:
    scene.names["a.test"] = failure
    asked = scene.ask("a.test")
    scene.reactor.take()
    assert asked.hosts == []
    assert scene.count("gateway_dns_lookups_total", result="failure") == 1


def test_a_failure_leaves_the_last_good_addresses(scene: Scene) -> None:
    """For ten minutes, and no longer."""
    scene.names["a.test"] = ["192.0.2.1"]
    scene.ask("a.test")
    scene.reactor.take()
    scene.names["a.test"] = socket.gaierror(socket.EAI_NONAME, "unknown")
    for passed, expected in ((KEPT_FOR - 1, ["192.0.2.1"]), (2, [])):
        scene.reactor.advance(passed)
        asked = scene.ask("a.test")
        scene.reactor.take()
        assert asked.hosts == expected
    assert scene.count("gateway_dns_old_answers_total") == 1


def test_a_lookup_that_hangs_leaves_them_too(scene: Scene) -> None:
    """The first waits a moment, and who comes while it still hangs does not."""
    scene.names["a.test"] = ["192.0.2.1"]
    scene.ask("a.test")
    scene.reactor.take()
    hanging = scene.hang("a.test")
    first = scene.ask("a.test")
    scene.reactor.advance(PATIENCE - 0.01)
    assert first.hosts is None
    scene.reactor.advance(0.01)
    assert first.hosts == scene.ask("a.test").hosts == ["192.0.2.1"]
    scene.reactor.advance(GIVE_UP)
    assert scene.ask("a.test").hosts == ["192.0.2.1"]
    assert scene.count("gateway_dns_old_answers_total") == 3
    assert scene.count("gateway_dns_lookups_in_progress") == 1
    hanging.set()
    scene.reactor.take()
    assert scene.looked_up == ["a.test"] * 2


def test_one_without_addresses_is_given_up(scene: Scene) -> None:
    """Who asks does not wait longer, and until the lookup has ended the next is told at once. Then it is tried anew."""
    hanging = scene.hang("a.test")
    first = scene.ask("a.test")
    scene.reactor.advance(GIVE_UP - 0.01)
    assert first.hosts is None
    scene.reactor.advance(0.01)
    assert first.hosts == scene.ask("a.test").hosts == []
    hanging.set()
    scene.reactor.take()
    scene.names["a.test"] = ["192.0.2.1"]
    again = scene.ask("a.test")
    scene.reactor.take()
    assert again.hosts == ["192.0.2.1"]


def test_one_who_gives_up_hears_no_more(scene: Scene) -> None:
    scene.names["a.test"] = ["192.0.2.1"]
    one, other = scene.ask("a.test"), scene.ask("a.test")
    one.resolution.cancel()
    scene.reactor.take()
    assert (one.hosts, other.hosts) == ([], ["192.0.2.1"])


def test_names_that_hang_hold_up_no_others(scene: Scene) -> None:
    """However many they are: once a lookup was slow, the name shares a part of the threads with its like."""
    slow = [f"slow{number}.test" for number in range(2 * SLOW_THREADS)]
    for group in (slow[:SLOW_THREADS], slow[SLOW_THREADS:]):
        events = [scene.hang(host) for host in group]
        for host in group:
            scene.ask(host)
        scene.reactor.advance(PATIENCE)
        for event in events:
            event.set()
        scene.reactor.take(SLOW_THREADS)
    for host in slow:
        scene.hang(host)
        scene.ask(host)
    scene.names["well.test"] = ["192.0.2.1"]
    well = scene.ask("well.test")
    scene.reactor.take()
    assert well.hosts == ["192.0.2.1"]
    assert scene.count("gateway_dns_lookups_in_progress") == len(slow)
    for event in scene.hanging:
        event.set()
    scene.reactor.take(len(slow))
    assert sorted(scene.looked_up) == sorted([*slow * 2, "well.test"])


def test_threads_are_bounded(scene: Scene) -> None:
    """What finds no thread waits for one, in its turn."""
    for number in range(THREADS):
        scene.hang(f"slow{number}.test")
        scene.ask(f"slow{number}.test")
    scene.names["well.test"] = ["192.0.2.1"]
    well = scene.ask("well.test")
    scene.hanging[0].set()
    scene.reactor.take(2)
    assert well.hosts == ["192.0.2.1"]


def test_names_that_nobody_asks_for_are_forgotten(scene: Scene) -> None:
    for host in ("a.test", "b.test"):
        scene.names[host] = ["192.0.2.1"]
        scene.ask(host)
        scene.reactor.take()
        scene.reactor.advance(KEPT_FOR)
    assert list(scene.resolver._names) == ["b.test"]


def test_an_outage_is_two_lines_in_the_log(scene: Scene) -> None:
    """One when it begins and one when it ends, however many ask meanwhile."""
    with logged() as events:
        for answer in ([], [], ["192.0.2.1"], ["192.0.2.1"]):
            scene.names["a.test"] = answer
            scene.ask("a.test")
            scene.reactor.take()
    assert list(map(formatEvent, events)) == [
        "a.test cannot be looked up: it has no addresses",
        "a.test has addresses again",
    ]
