"""Requests at a rate that does not depend on the answers, until told to stop, and what became of each.

Some go over connections that are kept, the others over a new one each, which is closed after the answer. A request is
due at a random moment, as from many clients who know nothing of each other, and its latency counts from that moment
(see ``offered``). Nothing is sent again. Blocks, and is meant for a thread of its own: raw sockets and epoll, because
two thousand new connections a second are more than asyncio is good for beside what is measured.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from math import inf

from attrs import define, field

from bench.load import Address, Failure
from bench.offered import at_random
from bench.result import quantile

PATIENCE = 10.0
"""Seconds after which an answer has failed."""


@define(eq=False)
class _Link:
    """``due`` is None while nothing is under way. ``sent``: when the request had left."""

    socket: socket.socket
    fresh: bool
    due: float | None = None
    sent: float | None = None
    received: bytes = b""


@define
class Arrived:
    """Of the requests that were answered: when, and after how many seconds since they were due; in step."""

    ended: array[float] = field(factory=lambda: array("d"), repr=False)
    took: array[float] = field(factory=lambda: array("d"), repr=False)
    fresh: int = 0
    failures: list[Failure] = field(factory=list)

    @property
    def answered(self) -> int:
        return len(self.ended)

    def percentile(self, share: float, first: float = -inf, last: float = inf) -> float:
        """Milliseconds, of what ended from ``first`` to ``last`` (``time.monotonic()``)."""
        pairs = zip(self.ended, self.took, strict=True)
        return quantile(sorted(took for ended, took in pairs if first <= ended <= last), share) * 1e3

    def failed(self, first: float, last: float) -> list[Failure]:
        return [failure for failure in self.failures if first <= failure.at <= last]


class Arriving:
    """``kept_rate`` requests a second over ``kept`` connections, and ``fresh_rate`` over new ones.

    An answer is good if it is a 200 and ends with ``body``. ``arrived`` may be read after ``run``.
    """

    def __init__(
        self,
        address: Address,
        path: str,
        body: bytes,
        kept: int = 0,
        kept_rate: float = 0.0,
        fresh_rate: float = 0.0,
    ) -> None:
        self._address = address
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
        self._requests = {False: head + b"\r\n", True: head + b"Connection: close\r\n\r\n"}
        self._body = body
        self._kept = kept
        self._rates = (kept_rate, fresh_rate)
        self.arrived = Arrived()
        self.seconds = 0.0
        self._links: dict[int, _Link] = {}
        self._idle: deque[_Link] = deque()
        self._waiting: deque[float] = deque()
        self._stopping = False

    def stop(self) -> None:
        """From any thread: send no more. ``run`` ends when what is under way has ended."""
        self._stopping = True

    def run(self) -> None:
        self._epoll = select.epoll()
        try:
            for _ in range(self._kept):
                self._idle.append(self._connect(fresh=False))
            start = time.monotonic()
            look = start + 1.0
            for moment, fresh in self._moments():
                while (left := start + moment - time.monotonic()) > 0 and not self._stopping:
                    self._take_in(left)
                if self._stopping:
                    break
                self._take_in(0.0)
                self._begin(start + moment, fresh)
                if start + moment > look:
                    look += 1.0
                    self._expire()
            self.seconds = time.monotonic() - start
            while any(link.due is not None for link in self._links.values()):
                self._take_in(0.1)
                self._expire()
        finally:
            for link in self._links.values():
                link.socket.close()
            self._epoll.close()

    def _moments(self) -> Iterator[tuple[float, bool]]:
        kinds = [
            zip(at_random(rate, inf, seed), repeat(fresh))
            for seed, (fresh, rate) in enumerate(zip((False, True), self._rates, strict=True))
            if rate
        ]
        return iter(heapq.merge(*kinds))

    def _connect(self, fresh: bool) -> _Link:
        end = socket.socket()
        end.setblocking(False)
        end.connect_ex(self._address)
        link = _Link(end, fresh)
        self._links[end.fileno()] = link
        self._epoll.register(end, select.EPOLLIN)
        return link

    def _begin(self, due: float, fresh: bool) -> None:
        if fresh:
            self._send(self._connect(fresh=True), due)
        elif self._idle:
            self._send(self._idle.popleft(), due)
        else:
            self._waiting.append(due)

    def _send(self, link: _Link, due: float) -> None:
        link.due = due
        try:
            link.socket.send(self._requests[link.fresh])
        except BlockingIOError:
            # The connection is not there yet. Over loopback it nearly always is.
            self._epoll.modify(link.socket, select.EPOLLIN | select.EPOLLOUT)
        except OSError as error:
            self._lost(link, error.errno)
        else:
            link.sent = time.monotonic()

    def _take_in(self, seconds: float) -> None:
        for number, events in self._epoll.poll(min(seconds, 0.1)):
            link = self._links.get(number)
            if link is None:
                continue
            if link.due is not None and link.sent is None and events & select.EPOLLOUT:
                self._epoll.modify(link.socket, select.EPOLLIN)
                self._send(link, link.due)
            else:
                self._receive(link)

    def _receive(self, link: _Link) -> None:
        number = 0
        try:
            data = link.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            data, number = b"", error.errno or 0
        if not data or link.due is None:
            self._lost(link, number)
            return
        link.received += data
        if not link.received.startswith(b"HTTP/1.1 200"[: len(link.received)]):
            self._fail(link, f"status {link.received[9:12].decode(errors='replace')}", "")
            self._replace(link)
        elif link.received.endswith(self._body):
            self._answered(link, link.due)

    def _answered(self, link: _Link, due: float) -> None:
        now = time.monotonic()
        self.arrived.ended.append(now)
        self.arrived.took.append(now - due)
        self.arrived.fresh += link.fresh
        link.due = link.sent = None
        link.received = b""
        if link.fresh:
            self._drop(link)
        else:
            self._free(link)

    def _free(self, link: _Link) -> None:
        if self._waiting:
            self._send(link, self._waiting.popleft())
        else:
            self._idle.append(link)

    def _lost(self, link: _Link, number: int | None) -> None:
        """The other side has closed, or cannot be reached. Of a connection that waits for nothing, that is no fault."""
        if link.due is not None:
            if number == errno.ECONNREFUSED:
                kind = "connect refused"
            elif number:
                kind = f"{os.strerror(number).lower()} {'in the middle of' if link.received else 'before'} the answer"
            else:
                kind = f"closed {'in the middle of' if link.received else 'before'} the answer"
            self._fail(link, kind, "")
        else:
            self._idle.remove(link)
        self._replace(link)

    def _fail(self, link: _Link, kind: str, detail: str) -> None:
        self.arrived.failures.append(Failure(kind, detail, link.sent, time.monotonic(), link.fresh))

    def _replace(self, link: _Link) -> None:
        self._drop(link)
        if not link.fresh and not self._stopping:
            self._free(self._connect(fresh=False))

    def _drop(self, link: _Link) -> None:
        link.due = None
        del self._links[link.socket.fileno()]
        self._epoll.unregister(link.socket)
        link.socket.close()

    def _expire(self) -> None:
        before = time.monotonic() - PATIENCE
        for link in [one for one in self._links.values() if one.due is not None and one.due < before]:
            self._fail(link, "no answer in time", "")
            self._replace(link)
