"""When names are looked up, what is kept, and what becomes of the targets of a service."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from apigw import is_compiled
from apigw.config.model import Service
from apigw.config.model import Target as TargetConfig
from apigw.ops.metrics import LookupSeries, Metrics
from apigw.shared.page import Page
from apigw.upstream.balancing import RoundRobin
from apigw.upstream.name_servers import MOST, Address, Found, NotAnswered
from apigw.upstream.named_targets import MOST_REPORTED, NamedTargets, called, own_listeners, why_not
from apigw.upstream.names import KEPT_WHEN_FAILED, KEPT_WHEN_NONE, OVERDUE, Names
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


class Servers:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.waiting: list[Deferred[Found]] = []

    def look_up(self, kind: str, name: str) -> Deferred[Found]:
        self.asked.append((kind, name))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, *hosts: str, ttl: float = 10, **more: Any) -> None:
        self.waiting.pop(0).callback(Found(tuple(Address(host) for host in hosts), ttl, **more))

    def fail(self) -> None:
        self.waiting.pop(0).errback(NotAnswered("no name server answers"))


class Scene:
    """One process, and somebody who follows the name ``orders.test``."""

    def __init__(self, page: Page | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        servers: Any = Servers()
        self.servers: Servers = servers
        self.names = Names(self.clock, servers, LookupSeries(CollectorRegistry()), lambda: 0.0, page)
        self.told: list[list[str]] = []
        self.following = self.names.follow("dns", "Orders.test", self.tell)
        self.clock.advance(0)

    def tell(self, found: tuple[Address, ...]) -> None:
        self.told.append([each.host for each in found])


def test_a_name_is_looked_up_when_its_ttl_is_over() -> None:
    scene = Scene()
    scene.servers.answer("10.0.0.1", ttl=10)
    assert scene.told == [["10.0.0.1"]]
    scene.clock.advance(9.9)
    assert len(scene.servers.asked) == 1
    scene.clock.advance(0.2)
    assert scene.servers.asked == [("dns", "orders.test")] * 2
    scene.servers.answer("10.0.0.2", "10.0.0.1")
    assert scene.told[-1] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(("ttl", "after"), [(0, 1), (0.5, 1), (86400, 300)])
def test_a_ttl_has_bounds(ttl: float, after: float) -> None:
    """One of 0 does not mean a lookup for each request, one of a day not that a change takes a day."""
    scene = Scene()
    scene.servers.answer("10.0.0.1", ttl=ttl)
    scene.clock.advance(after - 0.01)
    assert len(scene.servers.asked) == 1
    scene.clock.advance(0.02)
    assert len(scene.servers.asked) == 2


def test_the_last_good_addresses_stay_while_no_server_answers() -> None:
    """For ten minutes, tried again after 1 s, then twice as long each time, up to 30 s."""
    scene = Scene()
    scene.servers.answer("10.0.0.1", ttl=1)
    times = []
    while scene.told[-1] and scene.clock.seconds() < 1000:
        scene.clock.advance(0.5)
        if scene.servers.waiting:
            times.append(scene.clock.seconds())
            scene.servers.fail()
    pauses = [round(after - before) for before, after in pairwise(times)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert KEPT_WHEN_FAILED <= scene.clock.seconds() < KEPT_WHEN_FAILED + 40
    while not scene.servers.waiting:
        scene.clock.advance(1)
    scene.servers.answer("10.0.0.9")
    assert scene.told[-1] == ["10.0.0.9"]


def test_they_stay_for_a_short_time_if_the_answer_is_that_there_are_none() -> None:
    """Somebody else may soon have them."""
    scene = Scene()
    scene.servers.answer("10.0.0.1", ttl=1)
    while scene.told[-1] and scene.clock.seconds() < 1000:
        scene.clock.advance(0.5)
        if scene.servers.waiting:
            scene.servers.answer()
    assert KEPT_WHEN_NONE <= scene.clock.seconds() < 2 * KEPT_WHEN_NONE + 5


def test_a_family_of_which_nothing_was_heard_stays() -> None:
    scene = Scene()
    scene.servers.answer("10.0.0.1", "fd00::1", ttl=1)
    scene.clock.advance(1.1)
    scene.servers.answer("10.0.0.2", unknown=(6,))
    assert scene.told[-1] == ["10.0.0.2", "fd00::1"]


def test_at_most_256_addresses_are_used() -> None:
    """Those that were used before stay, if there are too many."""
    scene = Scene()
    some = [f"10.9.0.{number}" for number in range(1, 11)]
    scene.servers.answer(*some, ttl=1)
    scene.clock.advance(1.1)
    scene.servers.answer(*(f"10.{number // 250}.0.{number % 250 + 1}" for number in range(1000)), *some)
    assert len(scene.told[-1]) == MOST
    assert set(some) <= set(scene.told[-1])


def test_nobody_looks_up_what_nobody_follows() -> None:
    scene = Scene()
    scene.names.leave(scene.following)
    assert scene.clock.getDelayedCalls() == []
    scene.servers.waiting.clear()
    scene.names.follow("dns", "orders.test", scene.tell)
    scene.clock.advance(0)
    scene.servers.answer("10.0.0.1")
    assert scene.told == [["10.0.0.1"]]


def test_who_follows_a_known_name_is_told_at_once() -> None:
    """So a reload has the targets of a new service at once, if another has the same name."""
    scene = Scene()
    scene.servers.answer("10.0.0.1")
    scene.names.follow("dns", "orders.test", scene.tell)
    assert scene.told == [["10.0.0.1"]] * 2


def test_one_worker_looks_up_and_all_have_the_same(page: Page) -> None:
    """The others look at the page; if an answer is overdue, they look up themselves."""
    clock = Clock()
    clock.advance(1000)
    checker = Scene(page, clock)
    checker.names.begin()
    clock.advance(0)
    checker.servers.answer("10.0.0.1", ttl=10)
    other = Scene(page, clock)
    assert (other.told, other.servers.asked) == ([["10.0.0.1"]], [])
    clock.advance(10.1)
    checker.servers.answer("10.0.0.2", ttl=10)
    other.names.look()
    assert (other.told[-1], other.servers.asked) == (["10.0.0.2"], [])
    checker.names.stop()
    clock.advance(10 + OVERDUE - 0.1)
    assert other.servers.asked == []
    clock.advance(0.2)
    other.servers.answer("10.0.0.3")
    assert other.told[-1] == ["10.0.0.3"]
    other.names.begin()
    clock.advance(10.1)
    assert len(other.servers.asked) == 2


# Targets.


class Quiet:
    """A pool without connections."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Served:
    """A service whose targets these are."""

    def __init__(self, *targets: TargetConfig, is_own: Any = lambda host, port: False) -> None:
        self.scene = Scene()
        deadlines = Deadlines(self.scene.clock)
        agent: Any = Quiet()
        series = Metrics(CollectorRegistry(), "0").service("main")
        self.upstream = Upstream(Service("main", targets), self._target, RoundRobin(), deadlines, agent, None, series)
        self.upstream.start()
        self.named = NamedTargets(self.upstream, self.scene.names, is_own)
        self.named.start()
        self.scene.clock.advance(0)

    def _target(self, config: TargetConfig) -> Target:
        pool: Any = Quiet()
        return Target(config, pool)

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.upstream.targets]


NAMED = TargetConfig("https", "orders.test", 8080, 3, "dns")


def test_a_name_has_as_many_targets_as_addresses() -> None:
    """They are called by the name, to which static ones are added; what stays keeps all that is known of it."""
    served = Served(NAMED, TargetConfig("https", "10.0.0.1", 8080))
    assert served.names == ["https://10.0.0.1:8080"]
    served.scene.servers.answer("10.0.0.1", "10.0.0.2", "fd00::1", ttl=1)
    assert served.names == ["https://10.0.0.1:8080", "https://10.0.0.2:8080", "https://[fd00::1]:8080"]
    kept = served.upstream.targets[1]
    assert (kept.authority, kept.weight, kept.config.called) == (b"orders.test:8080", 3, "orders.test")
    served.scene.clock.advance(1.1)
    served.scene.servers.answer("10.0.0.2")
    assert served.upstream.targets[0] is kept


def test_requests_wait_for_the_first_lookup() -> None:
    """Until it has ended, or up to ``connect_timeout``."""
    served = Served(NAMED)
    assert served.upstream.resolving
    waited: list[Any] = []
    served.upstream.when_resolved().addBoth(waited.append)
    served.scene.servers.answer("10.0.0.1")
    assert (waited, served.upstream.resolving) == ([None], False)

    served = Served(NAMED)
    served.upstream.when_resolved().addBoth(waited.append)
    served.scene.clock.advance(5.1)
    assert waited[1].value.code == "no_healthy_target"
    served.scene.servers.fail()
    assert not served.upstream.resolving


def test_requests_that_wait_for_the_first_lookup_survive_a_reload() -> None:
    """Of a service that it has changed; nobody looks its names up after that."""
    for answers in (True, False):
        served = Served(NAMED)
        served.scene.names.leave(served.scene.following)
        waited: list[Any] = []
        served.upstream.when_resolved().addBoth(waited.append)
        served.upstream.close()
        served.named.stop()
        if answers:
            served.scene.servers.answer("10.0.0.1")
            assert (waited, len(served.upstream.targets)) == ([None], 1)
        served.scene.clock.advance(60)
        assert not served.scene.clock.getDelayedCalls()


def test_a_name_that_points_to_the_gateway_itself_is_no_target() -> None:
    """It would go round in circles."""
    served = Served(NAMED, is_own=lambda host, port: (host, port) == ("10.0.0.2", 8080))
    served.scene.servers.answer("10.0.0.1", "10.0.0.2")
    assert served.names == ["https://10.0.0.1:8080"]


def test_of_many_refused_addresses_a_few_are_logged() -> None:
    """Whoever writes the records of a name does not fill the log."""
    served = Served(NAMED)
    with capturedLogs() as logged:
        served.scene.servers.answer("10.0.0.1", *(f"127.0.0.{number}" for number in range(1, 101)))
    said = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.warn]
    assert len(said) == MOST_REPORTED + 1
    assert said[-1] == "main: nor are 92 others"


@pytest.mark.parametrize(
    ("host", "refused", "allowed"),
    [
        ("10.0.0.1", False, False),
        ("fd00::1", False, False),
        ("64:ff9b::a00:1", False, False),
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("169.254.169.254", True, False),
        ("fe80::1", True, False),
        ("0.0.0.0", True, True),
        ("0.0.0.1", True, True),
        ("::", True, True),
        ("224.0.0.1", True, True),
        ("ff02::1", True, True),
        ("255.255.255.255", True, True),
        ("240.0.0.1", True, True),
    ],
)
def test_addresses_that_are_refused(host: str, refused: bool, allowed: bool) -> None:
    """What is local to the machine is used if the operator says so; what is no host's address never is."""
    assert bool(why_not(Address(host), False)) is refused
    assert bool(why_not(Address(host), True)) is allowed
    assert bool(why_not(Address(host, trusted=True), False)) is allowed


@pytest.mark.parametrize(
    ("lookup", "host", "name"),
    [
        ("dns", "orders.test.", "orders.test"),
        ("dns", "_odd.test", "_odd.test"),
        ("srv", "_https._tcp.orders.test", "orders.test"),
        ("srv", "orders.service.test", "orders.service.test"),
    ],
)
def test_the_name_that_a_certificate_must_have(lookup: str, host: str, name: str) -> None:
    assert called(TargetConfig("https", host, 443, lookup=lookup)) == name


def test_the_gateways_own_listeners() -> None:
    """One without an interface listens on every address of the machine."""
    is_own = own_listeners(["tcp:8080", "tcp:9090:interface=127.0.0.1", "unix:/run/a.sock"])
    assert is_own("127.0.0.1", 8080)
    assert is_own("127.0.0.1", 9090)
    assert not is_own("127.0.0.2", 9090)
    assert not is_own("192.0.2.1", 8080)
    assert not is_own("127.0.0.1", 8081)
