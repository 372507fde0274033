"""Who gets a place where secrets are hashed, and in which order."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from apigw.contract.address_groups import block, network
from apigw.errors import Overloaded
from apigw.policy.auth.hashing import HASHING_NICE, UNKNOWN, SecretThreads

reactor: Any = global_reactor


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux alone")
@pytest_twisted.ensureDeferred
async def test_a_hash_waits_for_the_reactor_and_not_the_reactor_for_it() -> None:
    """On a single core, a flood of wrong secrets takes half of the time from everybody else."""
    threads = SecretThreads(reactor)
    threads.start()
    try:
        nice = await threads.run(
            lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) >= HASHING_NICE, "a"
        )
        assert nice
    finally:
        threads.stop()


@pytest_twisted.ensureDeferred
async def test_hashing_happens_in_other_threads_and_few() -> None:
    """A flood of wrong secrets stops the reactor, or takes all memory."""
    threads = SecretThreads(reactor, threads=2, queue=3)
    threads.start()
    gate = threading.Event()
    idents: set[int] = set()

    def work() -> bool:
        gate.wait(30)
        idents.add(threading.get_ident())
        return True

    try:
        answers = [threads.run(work, f"client{number}") for number in range(5)]
        with pytest.raises(Overloaded) as caught:
            threads.run(work, "another")
        assert caught.value.status == 503
        gone = answers.pop()
        gone.cancel()
        with pytest.raises(CancelledError):
            await gone
        gate.set()
        assert await gatherResults(answers) == [True] * 4
        assert threading.get_ident() not in idents
        assert len(idents) <= 2

        def broken() -> Any:
            raise MemoryError

        with pytest.raises(MemoryError):
            await threads.run(broken, "a")
        assert await threads.run(lambda: True, "a")
    finally:
        gate.set()
        threads.stop()


@pytest_twisted.ensureDeferred
async def test_no_client_takes_all_places() -> None:
    """Who guesses at one client's secret is told to wait, and others are served meanwhile."""
    threads = SecretThreads(reactor, threads=1, queue=9, each=3)
    threads.start()
    gate = threading.Event()

    def work() -> bool:
        return gate.wait(30)

    try:
        answers = [threads.run(work, "acme") for _ in range(3)]
        for _ in range(5):
            with pytest.raises(Overloaded):
                threads.run(work, "acme")
        answers += [threads.run(work, id) for id in ("nobody", "choosy") for _ in range(3)]
        gate.set()
        assert await gatherResults(answers) == [True] * 9
        assert await gatherResults([threads.run(work, "acme") for _ in range(3)]) == [True] * 3
        gate.clear()
        answers = [threads.run(work, str(number), b"192.0.2.1") for number in range(4)]
        with pytest.raises(Overloaded):
            threads.run(work, "5", b"192.0.2.1")
        answers += [threads.run(work, "5", b"192.0.2.2"), threads.run(work, "6")]
        gate.set()
        assert await gatherResults(answers) == [True] * 6
        assert await threads.run(work, "7", b"192.0.2.1")
    finally:
        gate.set()
        threads.stop()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class Queue:
    """One thread, which is busy until ``open``, and in which order others were hashed."""

    def __init__(self, places: int = 6) -> None:
        self.threads = SecretThreads(reactor, threads=1, queue=places, each=4, each_caller=3)
        self.threads.start()
        self.gate = threading.Event()
        self.hashed: list[str] = []
        self.first = self.threads.run(lambda: self.gate.wait(30), "first")

    def run(self, name: str, id: str, caller: bytes = b"") -> Deferred[bool]:
        return self.threads.run(lambda: self.hashed.append(name) or True, id, caller)

    async def open(self) -> None:
        """Everybody who waits is hashed."""
        self.gate.set()
        await self.first
        while self.threads._queues or not self.threads._idle:
            later: Deferred[None] = Deferred()
            reactor.callLater(0.001, later.callback, None)
            await later


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    queue = Queue(*getattr(request, "param", ()))
    yield queue
    queue.gate.set()
    queue.threads.stop()


@pytest_twisted.ensureDeferred
async def test_ids_take_turns(queue: Queue) -> None:
    """Whoever guesses at one secret delays nobody else by more than one turn; who does not exist is one id."""
    answers = [queue.run(f"ada{number}", "ada") for number in range(3)]
    answers += [queue.run(f"nobody{number}", f"{UNKNOWN}{number}") for number in range(2)]
    answers.append(queue.run("bob", "bob"))
    await queue.open()
    assert await gatherResults(answers) == [True] * 6
    assert queue.hashed == ["ada0", "nobody0", "bob", "ada1", "nobody1", "ada2"]


@pytest_twisted.ensureDeferred
async def test_inventing_names_takes_no_place_of_those_who_exist(queue: Queue) -> None:
    """From however many addresses. Who gets no place is told the same as if it had been hashed, and no sooner."""
    invented = [queue.run("nobody", f"{UNKNOWN}{number}", b"192.0.%d.1" % number) for number in range(100)]
    assert not any(each.called for each in invented)
    known = [queue.run(str(number), str(number), b"198.51.100.%d" % number) for number in range(2)]
    await queue.open()
    assert await gatherResults(known) == [True] * 2
    assert await gatherResults(invented) == [True] * 4 + [False] * 96


@pytest.mark.parametrize("queue", [[12]], indirect=True)
@pytest.mark.parametrize("id", ["ada", f"{UNKNOWN}ada"])
@pytest_twisted.ensureDeferred
async def test_too_much_of_a_name_is_refused_whether_it_exists_or_not(queue: Queue, id: str) -> None:
    """Of one name, and from one address; whoever of its addresses has the most loses a place to another. It does not
    matter how many other names are invented at that time."""
    invented = [queue.run("nobody", f"{UNKNOWN}{number}", b"203.0.113.%d" % number) for number in range(6)]
    guesses = [queue.run("guess", id, b"192.0.2.1") for _ in range(3)]
    with pytest.raises(Overloaded):
        queue.run("guess", id, b"192.0.2.1")
    guesses.append(queue.run("guess", id, b"192.0.2.2"))
    with pytest.raises(Overloaded):
        queue.run("guess", id, b"192.0.2.3")
    other = queue.run("other", id, b"198.51.100.1")
    with pytest.raises(Overloaded):
        await guesses.pop()
    await queue.open()
    assert await gatherResults([*guesses, other]) == [not id.startswith(UNKNOWN)] * 4
    assert await gatherResults(invented) == [True] * 4 + [False] * 2


@pytest_twisted.ensureDeferred
async def test_the_id_with_the_most_places_loses_one(queue: Queue) -> None:
    """Where all are taken: to another that has fewer."""
    attacked = [queue.run(f"{name}{number}", name) for name in ("ada", "bob") for number in range(3)]
    one = queue.run("one", "one")
    with pytest.raises(Overloaded):
        queue.run("ada3", "ada")
    two = queue.run("two", "two")
    dropped = [each for each in attacked if each.called]
    for each in dropped:
        with pytest.raises(Overloaded):
            await each
    assert [attacked.index(each) for each in dropped] == [2, 5]
    await queue.open()
    assert [await one, await two] == [True, True]
    assert queue.hashed == ["ada0", "bob0", "one", "two", "ada1", "bob1"]


@pytest_twisted.ensureDeferred
async def test_a_block_of_addresses_loses_a_place_to_another(queue: Queue) -> None:
    """Guesses at one name, from many addresses of a network, do not lock out who has it, from elsewhere."""
    guesses = [queue.run(f"guess{number}", "ada", b"192.0.2.%d" % number) for number in range(4)]
    with pytest.raises(Overloaded):
        queue.run("guess4", "ada", b"192.0.2.5")
    right = queue.run("right", "ada", b"198.51.100.1")
    with pytest.raises(Overloaded):
        await guesses[3]
    await queue.open()
    assert await right
    assert queue.hashed == ["guess0", "guess1", "guess2", "right"]


@pytest_twisted.ensureDeferred
async def test_who_leaves_gives_up_its_place(queue: Queue) -> None:
    """At once, and is not hashed; nor is one who was dropped, or turned away, and then leaves."""
    gone = [queue.run(f"ada{number}", "ada", b"192.0.2.1") for number in range(3)]
    gone += [queue.run("nobody", f"{UNKNOWN}{number}") for number in range(5)]
    for each in gone:
        each.cancel()
        with pytest.raises(CancelledError):
            await each
    assert (queue.threads._taken, queue.threads._callers) == ({"first": 1}, {"": 1})
    again = [queue.run("again", "ada", b"192.0.2.1") for _ in range(3)]
    await queue.open()
    assert await gatherResults(again) == [True] * 3
    assert queue.hashed == ["again"] * 3
    assert (queue.threads._taken, queue.threads._callers) == ({}, {})


@pytest.mark.parametrize(
    ("one", "other", "same_network", "same_block"),
    [
        (b"192.0.2.1", b"192.0.2.1", True, True),
        (b"192.0.2.1", b"192.0.2.2", False, True),
        (b"192.0.2.1", b"192.0.3.1", False, False),
        (b"::ffff:192.0.2.1", b"192.0.2.1", True, True),
        (b"::ffff:192.0.2.1", b"::ffff:198.51.100.1", False, False),
        (b"2001:db8::1", b"2001:db8::2", True, True),
        (b"2001:db8:0:1::1", b"2001:db8:0:2::1", False, True),
        (b"2001:db8:1::1", b"2001:db8:2::1", False, False),
        (b"unix:", b"unix:", True, True),
        (b"fe80::1%eth0", b"fe80::1%eth0", True, True),
        (b"", b"192.0.2.1", False, False),
    ],
)
def test_who_counts_as_one(one: bytes, other: bytes, same_network: bool, same_block: bool) -> None:
    """Addresses that one client has together."""
    assert (network(one) == network(other), block(one) == block(other)) == (same_network, same_block)
