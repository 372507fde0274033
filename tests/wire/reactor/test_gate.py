"""Processes that share a listening socket have as many connections each, and none waits for one that is busy."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.sharing import Sharing, sharing
from twisted.internet.protocol import Protocol, ServerFactory

from apigw.process.listeners import Counts
from apigw.shared.page import Page
from apigw.shared.slots import READY, TICK
from apigw.wire.reactor import epoll
from apigw.wire.reactor.gate import HELP, LOOK, Gate, allowed, bell
from apigw.wire.reactor.ports import serve

PATIENCE = 20.0


class Clients(ServerFactory):
    """Counts them for a gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.number = 0

    def add(self, more: int) -> None:
        self.number += more
        self.gate.count(self.number)

    def buildProtocol(self, addr: object) -> Protocol:
        return Client(self)


class Client(Protocol):
    def __init__(self, clients: Clients) -> None:
        self.clients = clients

    def connectionMade(self) -> None:
        self.clients.add(1)

    def connectionLost(self, reason: object = None) -> None:
        self.clients.add(-1)


class Worker:
    """One of several in this process, each with its own reactor, whose time and turns are the test's."""

    def __init__(self, page: Page, number: int, sockets: list[socket.socket], shared_bell: int) -> None:
        self.now = 1000.0
        self.page = page
        self.number = number
        self.reactor: Any = epoll._make()
        self.reactor.seconds = lambda: self.now
        self.reactor.startRunning(installSignalHandlers=False)
        page.slots.claim(number, os.getpid())
        page.slots.put(number, READY, 1)
        page.slots.put(number, TICK, 1_000_000)
        self.gate = Gate(self.reactor, Counts(page.slots, number, lambda: 1000.0), shared_bell)
        self.clients = Clients(self.gate)
        self.ports: list[Any] = [serve(self.reactor, each, self.clients, self.gate) for each in sockets]
        self.turns()

    def turns(self) -> None:
        for _ in range(4):
            self.reactor.iterate(0)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.turns()

    def has(self, connections: int) -> None:
        """This many, whoever they are."""
        self.clients.add(connections - self.clients.number)

    def close(self) -> None:
        self.gate.leave()
        self.reactor.removeAll()
        self.reactor._poller.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)) for _ in range(2)]


@pytest.fixture
def workers(sockets: list[socket.socket]) -> Iterator[Callable[[int], list[Worker]]]:
    """Makes workers, which share two sockets."""
    page = Page.make(4, 1 << 16)
    shared_bell = bell()
    made: list[Worker] = []

    def make(number: int) -> list[Worker]:
        made.extend(Worker(page, each, sockets, shared_bell) for each in range(number))
        return made

    yield make
    for each in made:
        each.close()
    os.close(shared_bell)


Workers = Callable[[int], list[Worker]]


@pytest.fixture
def connect(sockets: list[socket.socket]) -> Iterator[Callable[..., None]]:
    """Connects so many clients to the first socket, or to another."""
    with ExitStack() as stack:

        def connect_some(number: int, to: int = 0) -> None:
            for _ in range(number):
                stack.enter_context(socket.create_connection(sockets[to].getsockname()))

        yield connect_some


Connect = Callable[..., None]


@contextmanager
def one_more_file() -> Iterator[None]:
    """This process may open a single one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_how_many_more_one_may_have() -> None:
    """One more than the least, and a sixteenth."""
    assert [allowed(least) for least in (0, 15, 16, 160)] == [1, 16, 18, 171]


def test_one_accepts_while_it_has_no_more_than_its_share(workers: Workers, connect: Connect) -> None:
    """It leaves the rest to the others, on every socket, and whoever has fewer takes them."""
    one, other = workers(2)
    connect(3)
    one.turns()
    assert one.clients.number == 2  # with one more than the other it still accepts
    connect(1, to=1)
    one.turns()
    assert one.clients.number == 2
    other.turns()
    assert other.clients.number == 2


def test_connections_on_two_sockets_at_once(workers: Workers, connect: Connect) -> None:
    """A worker takes what the kernel has woken it for, though the first is one too many: nobody else is woken."""
    one, _ = workers(2)
    one.has(1)
    connect(1, to=0)
    connect(1, to=1)
    one.turns()
    assert one.clients.number == 3


def test_whoever_lets_the_least_rise_wakes_the_others(workers: Workers, connect: Connect) -> None:
    """At once: no time passes until another accepts what it leaves."""
    one, other = workers(2)
    connect(3)
    one.turns()
    assert one.clients.number == 2
    other.turns()
    assert other.clients.number == 1
    connect(1)
    one.turns()
    assert one.clients.number == 3


def test_nobody_is_woken_in_vain(workers: Workers, connect: Connect) -> None:
    """Who is far from the others takes connection after connection, and does not ring for those who cannot accept."""
    one, other = workers(2)
    other.has(50)
    connect(1)
    other.turns()
    other.turns()
    counted = os.read(one.gate.fileno(), 8)
    connect(30)
    for _ in range(10):
        one.turns()
    assert one.clients.number + other.clients.number == 81
    with pytest.raises(BlockingIOError):
        os.read(one.gate.fileno(), 8)
    assert counted


def test_who_loses_connections_accepts_again(workers: Workers, connect: Connect) -> None:
    """As soon as it has no more than its share."""
    one, _ = workers(2)
    connect(3)
    one.turns()
    assert one.clients.number == 2
    one.has(1)
    one.turns()
    assert one.clients.number == 2


def test_what_nobody_takes_is_taken_after_two_looks(workers: Workers, connect: Connect) -> None:
    """The one that has fewer hangs. So many at a time, that it keeps the others' share when it is only slow."""
    one, _ = workers(2)
    connect(2)
    one.turns()
    connect(20)
    one.later(LOOK)
    assert one.clients.number == 2
    one.later(LOOK)
    assert one.clients.number == 2 + HELP
    one.later(LOOK)
    assert one.clients.number == 22


def test_who_hangs_is_not_waited_for(workers: Workers, connect: Connect) -> None:
    """Its number counts no more when it has missed its ticks; whoever waits finds out by itself."""
    one, other = workers(2)
    connect(2)
    one.turns()
    connect(1)
    other.page.slots.put(other.number, TICK, 0)
    one.later(LOOK)
    assert one.clients.number == 3


def test_who_has_no_file_leaves_all_to_the_others(workers: Workers, connect: Connect) -> None:
    """However long it takes them, as it would hang up; what nobody else could take, it takes."""
    one, other = workers(2)
    connect(3)
    with one_more_file():
        one.turns()
    for _ in range(4):
        one.later(LOOK)
    assert one.clients.number == 1
    other.turns()
    assert other.clients.number == 2
    connect(2)
    other.page.slots.put(other.number, TICK, 0)
    for _ in range(3):
        one.later(LOOK)
    assert one.clients.number == 3


def test_who_leaves_wakes_the_others(workers: Workers, connect: Connect) -> None:
    """They accept at once what it leaves, and the last to leave knows that it is the last."""
    one, other = workers(2)
    connect(3)
    one.turns()
    assert one.clients.number == 2
    assert other.gate.leave()
    one.turns()
    assert one.clients.number == 3
    assert not one.gate.leave()


def test_one_alone_takes_all(workers: Workers, connect: Connect) -> None:
    """It has nobody to leave them to."""
    (one,) = workers(1)
    connect(20)
    for _ in range(10):
        one.turns()
    assert one.clients.number == 20


def test_all_of_the_machine(workers: Workers) -> None:
    """Each knows how many connections all of them have."""
    one, other = workers(2)
    one.has(3)
    other.has(4)
    assert one.gate.total() == other.gate.total() == 7


class Crowd:
    """Clients of processes."""

    def __init__(self, shared: Sharing) -> None:
        self.shared = shared
        self.clients: list[socket.socket] = []

    def come(self, number: int) -> None:
        """At the same time."""
        come = [socket.create_connection(self.shared.address, PATIENCE) for _ in range(number)]
        for client in come:
            client.sendall(b"a")
        for client in come:
            assert client.recv(1) == b"x"
        self.clients += come

    def go(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()
        while any(self.shared.counts()):
            pass


@pytest.fixture(scope="module")
def eight() -> Iterator[Sharing]:
    with sharing(8) as processes:
        yield processes


@pytest.mark.parametrize("at_once", [64, 8, 1])
def test_eight_processes_have_as_many_each(eight: Sharing, at_once: int) -> None:
    """The busiest of 8 has at most 10 of 64 connections, which is 1.25 × the mean, however they come."""
    crowd = Crowd(eight)
    for _ in range(5):
        for _ in range(64 // at_once):
            crowd.come(at_once)
        counts = eight.counts()
        assert sum(counts) == 64
        assert max(counts) <= 10, counts
        crowd.go()


def test_short_connections_are_accepted_beside_long_ones(eight: Sharing) -> None:
    """Two thousand, one after the other."""
    crowd = Crowd(eight)
    crowd.come(61)
    for _ in range(2000):
        with socket.create_connection(eight.address, PATIENCE) as client:
            client.sendall(b"a")
            assert client.recv(1) == b"x"
    crowd.go()


def test_a_stopped_process_takes_none() -> None:
    """Its socket is the others' too, and they wait for its share no longer than until they have looked twice."""
    with sharing(4, sluggish=True) as four:
        crowd = Crowd(four)
        crowd.come(16)
        before = four.counts()[2]
        os.kill(four.pids[2], signal.SIGSTOP)
        crowd.come(40)
        assert sum(four.counts()) == 56
        assert four.counts()[2] == before


def test_a_port_that_others_share_has_its_own_file(tmp_path: Path, workers: Workers) -> None:
    """A unix socket is shared alike."""
    (one,) = workers(1)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "a.sock"))
        listening.listen()
        serve(one.reactor, listening, one.clients, one.gate)
        client.connect(str(tmp_path / "a.sock"))
        one.turns()
        assert one.clients.number == 1
