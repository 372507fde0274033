"""Load at a rate that does not depend on the answers, as from many clients who know nothing of each other.

A request is due at a moment that was decided before the run, and its latency counts from that moment, whether a
connection was free to take it or not: a program that stalls is charged for everyone who waited (no coordinated
omission, as Gil Tene calls it). The gaps between requests are exponential, as independent clients make them, or even;
they are the same for every program. What the generator itself is late by is in the latency too, and ``late`` says how
much it was.
"""

from __future__ import annotations

import gc
import random
import select
import socket
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter

from attrs import field, frozen

from bench.load import Address
from bench.result import quantile

PATIENCE = 10.0
"""Seconds that are waited at the end for what has not been answered: it has failed then."""

BEHIND = 0.001
"""A generator that is late by more seconds takes in answers all the same before it sends on."""

_SLACK = Path("/proc/self/timerslack_ns")


@frozen
class Offered:
    """What was offered and what came of it. ``latencies`` are seconds in ascending order; ``late`` is by how many
    seconds the generator itself was late at the 95th percentile, which is part of them."""

    rate: float
    due: int
    failed: int
    seconds: float
    late: float
    latencies: array[float] = field(repr=False)

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return quantile(self.latencies, share) * 1e3


def at_random(rate: float, seconds: float, seed: int = 1) -> Iterator[float]:
    """When requests are due, in seconds from the start: ``rate`` a second on average, with exponential gaps."""
    source, at = random.Random(seed), 0.0
    while (at := at + source.expovariate(rate)) < seconds:
        yield at


def evenly(rate: float, seconds: float) -> Iterator[float]:
    """The same with gaps of one length, which never lets two requests come at once."""
    return (number / rate for number in range(int(rate * seconds)))


ARRIVALS: Mapping[str, Callable[[float, float], Iterator[float]]] = {"random": at_random, "even": evenly}


@contextmanager
def _punctual() -> Iterator[None]:
    """No pauses for garbage, and timers that ring when they should: by default the kernel may take 50 µs more."""
    before = _SLACK.read_text() if _SLACK.exists() else ""
    with suppress(OSError):
        _SLACK.write_text("1")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        with suppress(OSError):
            _SLACK.write_text(before)


class _Load:
    """Connections with one request at a time on each. What is due while all are busy waits for one that is not."""

    def __init__(self, address: Address, request: bytes, body: bytes, connections: int, stack: ExitStack) -> None:
        self.latencies, self.late, self.failed = array("d"), array("d"), 0
        self._address, self._request, self._body = address, request, body
        self._stack = stack
        self._epoll = stack.enter_context(select.epoll())
        self._sockets: dict[int, socket.socket] = {}
        self._idle: deque[int] = deque()
        self._waiting: deque[float] = deque()
        self._due: dict[int, float] = {}
        self._received: dict[int, bytes] = {}
        for _ in range(connections):
            self._connect()

    @property
    def busy(self) -> bool:
        return bool(self._due or self._waiting)

    def _connect(self) -> None:
        connected = self._stack.enter_context(socket.create_connection(self._address, PATIENCE))
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[connected.fileno()] = connected
        self._epoll.register(connected, select.EPOLLIN)
        self._idle.append(connected.fileno())

    def offer(self, due: float) -> None:
        if self._idle:
            self._send(self._idle.popleft(), due)
            self.late.append(perf_counter() - due)
        else:
            self._waiting.append(due)

    def _send(self, number: int, due: float) -> None:
        self._due[number] = due
        try:
            self._sockets[number].send(self._request)
        except OSError:
            self._lose(number)

    def _lose(self, number: int) -> None:
        """The request on this connection has failed, or the connection was closed; another one takes its place."""
        if self._due.pop(number, None) is not None:
            self.failed += 1
        else:
            self._idle.remove(number)
        self._received.pop(number, None)
        self._epoll.unregister(number)
        self._sockets.pop(number).close()
        self._connect()

    def wait(self, seconds: float) -> None:
        """Take in what has been answered, and wait at most so long if nothing has. Timeouts of epoll are whole
        milliseconds; those of select are not."""
        ready = self._epoll.poll(0)
        if not ready and seconds > 0:
            select.select((self._epoll,), (), (), seconds)
            ready = self._epoll.poll(0)
        for number, _ in ready:
            self._receive(number)

    def _receive(self, number: int) -> None:
        try:
            data = self._sockets[number].recv(65536)
        except OSError:
            data = b""
        if not data:
            self._lose(number)
            return
        if number in self._received:
            data = self._received.pop(number) + data
        if not data.startswith(b"HTTP/1.1 200"):
            self._lose(number)
        elif not data.endswith(self._body):
            self._received[number] = data
        else:
            self.latencies.append(perf_counter() - self._due.pop(number))
            if self._waiting:
                self._send(number, self._waiting.popleft())
            else:
                self._idle.append(number)

    def abandon(self) -> None:
        """What has no answer by now has failed."""
        self.failed += len(self._due) + len(self._waiting)


def offer(
    address: Address,
    request: bytes,
    body: bytes,
    rate: float,
    seconds: float,
    connections: int,
    arrivals: str = "random",
) -> Offered:
    """Send ``request`` so often for so long; blocks. An answer is good if it is a 200 and ends with ``body``.

    ``arrivals`` is one of ``ARRIVALS``.
    """
    with ExitStack() as stack:
        load = _Load(address, request, body, connections, stack)
        stack.enter_context(_punctual())
        start = perf_counter()
        due = 0
        for moment in ARRIVALS[arrivals](rate, seconds):
            while (left := start + moment - perf_counter()) > 0:
                load.wait(left)
            if left < -BEHIND:
                load.wait(0.0)
            load.offer(start + moment)
            due += 1
        end = start + seconds
        while load.busy and perf_counter() < end + PATIENCE:
            load.wait(0.1)
        load.abandon()
        took = perf_counter() - start
    return Offered(
        rate=rate,
        due=due,
        failed=load.failed,
        seconds=took,
        late=quantile(sorted(load.late), 0.95),
        latencies=array("d", sorted(load.latencies)),
    )
