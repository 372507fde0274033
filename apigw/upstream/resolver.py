"""Name resolution in threads of its own, so that a slow name server delays only requests for its names.

``getaddrinfo`` cannot be interrupted: a thread that waits for a name server is lost until the C library gives up, after
5 s for each server and attempt (resolv.conf(5)), or later. So no caller waits for the thread:

- There is one look-up for each name at a time, which concurrent callers share.
- The last good addresses are kept for ``KEPT_FOR``. They are used where a lookup fails, or takes longer than
  ``PATIENCE``; while it goes on they are used at once.
- For a name without such addresses, callers wait up to ``GIVE_UP``. Until its look-up has ended, further callers get
  an error at once.
- There are at most ``THREADS``. Names whose last look-up was slow get only ``SLOW_THREADS`` of them, so that they
  do not delay others.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

from apigw.ops.metrics import LookupSeries

KEPT_FOR = 600.0
"""Seconds for which old addresses are used if the look-up fails."""
PATIENCE = 0.25
"""Seconds that a look-up may take if there are old addresses. A healthy name server answers in a tenth of that."""
GIVE_UP = 10.0
THREADS = 64
SLOW_THREADS = 48

log = Logger()

Sockaddr = tuple[Any, ...]
GetAddrInfo = Callable[..., Sequence[tuple[int, int, int, str, Sockaddr]]]


@implementer(IHostResolution)
class _Resolution:
    """One caller's request for addresses."""

    def __init__(self, name: str, receiver: IResolutionReceiver, port: int, types: Any, transport: str) -> None:
        self.name = name
        self._receiver: IResolutionReceiver | None = receiver
        self._port = port
        self._types = types
        self._transport: Any = transport

    def tell(self, found: Sequence[tuple[int, Sockaddr]]) -> None:
        """Give the caller the addresses, or an error if there are none. Later calls have no effect."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            for family, sockaddr in found:
                address: IAddress
                if family == socket.AF_INET6:
                    address = IPv6Address(self._transport, sockaddr[0], self._port, *sockaddr[2:])
                else:
                    address = IPv4Address(self._transport, sockaddr[0], self._port)
                if self._types is None or type(address) in self._types:
                    receiver.addressResolved(address)
            receiver.resolutionComplete()

    def cancel(self) -> None:
        """The look-up goes on, for the next caller."""
        self.tell(())


@define(eq=False)
class _Name:
    """One name: its addresses, and its waiting callers. ``began`` is None while it is not being looked up."""

    host: str
    asked_at: float
    addresses: Sequence[tuple[int, Sockaddr]] = ()
    good_until: float = float("-inf")
    began: float | None = None
    asking: list[_Resolution] = field(factory=list)
    timer: IDelayedCall | None = None
    slow: bool = False
    """Whether the last look-up was slow, or the current one is."""
    failing: bool = False

    def answer(self) -> None:
        asking, self.asking = self.asking, []
        for resolution in asking:
            resolution.tell(self.addresses)


@implementer(IHostnameResolver)
class Resolver:
    """The reactor's resolver while it runs: for services and their checks, key sets, Redis and its Sentinels."""

    def __init__(self, reactor: Any, series: LookupSeries, getaddrinfo: GetAddrInfo = socket.getaddrinfo) -> None:
        """``getaddrinfo`` is called in threads."""
        self._reactor = reactor
        self._series = series
        self._getaddrinfo = getaddrinfo
        self._names: dict[str, _Name] = {}
        self._waiting: deque[_Name] = deque()
        self._busy: set[_Name] = set()
        self._work: SimpleQueue[_Name | None] = SimpleQueue()
        self._threads = 0
        self._before: IHostnameResolver | None = None
        self._running = False

    def start(self) -> None:
        self._running = True
        if IReactorPluggableNameResolver.providedBy(self._reactor):
            self._before = self._reactor.installNameResolver(self)

    def stop(self) -> None:
        """Running look-ups are not awaited: their threads do not keep the process alive."""
        self._running = False
        if self._before is not None:
            self._reactor.installNameResolver(self._before)
        for name in self._names.values():
            self._end_timer(name)
        for _ in range(self._threads):
            self._work.put(None)

    # IHostnameResolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName, resolutionReceiver, portNumber, addressTypes, transportSemantics)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName):
            resolution.tell([(socket.AF_INET, (hostName, 0))])
        elif isIPv6Address(hostName):
            resolution.tell([(socket.AF_INET6, (hostName, 0))])
        else:
            self._ask(hostName, resolution)
        return resolution

    def _ask(self, host: str, resolution: _Resolution) -> None:
        now = self._reactor.seconds()
        name = self._names.get(host)
        if name is None:
            self._forget_unused(now)
            name = self._names[host] = _Name(host, now)
        name.asked_at = now
        name.asking.append(resolution)
        if name.began is None:
            name.began = now
            name.timer = self._reactor.callLater(PATIENCE, self._is_slow, name)
            self._waiting.append(name)
            self._begin()
        else:
            self._answer_early(name, now)

    def _answer_early(self, name: _Name, now: float) -> None:
        """Answer with old addresses after ``PATIENCE``, or with an error after ``GIVE_UP``. The look-up goes on."""
        assert name.began is not None
        if now >= name.good_until:
            name.addresses = ()
        took = now - name.began
        if took >= GIVE_UP or (name.addresses and took >= PATIENCE):
            self._answer_old(name)

    def _answer_old(self, name: _Name) -> None:
        if name.addresses:
            self._series.old_used(len(name.asking))
        name.answer()

    def _is_slow(self, name: _Name) -> None:
        now = self._reactor.seconds()
        name.slow = True
        name.timer = None
        assert name.began is not None
        if now - name.began < GIVE_UP:
            name.timer = self._reactor.callLater(max(0.0, name.began + GIVE_UP - now), self._is_slow, name)
        else:
            self._note_failure(name, f"no answer in {GIVE_UP:g} s")
        self._answer_early(name, now)

    def _begin(self) -> None:
        """Start threads for the waiting names, up to the limits."""
        left = len(self._waiting)
        while left and len(self._busy) < THREADS:
            left -= 1
            name = self._waiting.popleft()
            if name.slow and sum(busy.slow for busy in self._busy) >= SLOW_THREADS:
                self._waiting.append(name)
                continue
            self._busy.add(name)
            if len(self._busy) > self._threads:
                self._threads += 1
                # A daemon thread: the end of the process waits for no name server.
                Thread(target=self._look_up, name=f"names {self._threads}", daemon=True).start()
            self._work.put(name)
        self._series.in_progress = len(self._busy) + len(self._waiting)

    def _look_up(self) -> None:
        """The main function of a thread."""
        while (name := self._work.get()) is not None:
            found: list[tuple[int, Sockaddr]] = []
            why = "it has no addresses"
            try:
                for family, _, _, _, sockaddr in self._getaddrinfo(name.host, 0, 0, socket.SOCK_STREAM):
                    if family in (socket.AF_INET, socket.AF_INET6):
                        found.append((family, sockaddr))
            except OSError as error:
                why = error.strerror or str(error)
            except Exception as error:  # UnicodeError, for an invalid name
                why = str(error)
            self._reactor.callFromThread(self._ended, name, found, why)

    def _ended(self, name: _Name, found: list[tuple[int, Sockaddr]], why: str) -> None:
        if not self._running:
            return
        now = self._reactor.seconds()
        assert name.began is not None
        took, name.began = now - name.began, None
        self._busy.discard(name)
        self._end_timer(name)
        name.slow = took >= PATIENCE
        self._series.ended(bool(found), took)
        if found:
            if name.failing:
                log.info("{host} has addresses again", host=name.host)
            name.failing = False
            name.addresses, name.good_until = found, now + KEPT_FOR
            name.answer()
        else:
            self._note_failure(name, why)
            if now >= name.good_until:
                name.addresses = ()
            self._answer_old(name)
        self._begin()

    def _note_failure(self, name: _Name, why: str) -> None:
        """Log the first failure only: a line for each look-up would flood the log in an outage."""
        if not name.failing:
            name.failing = True
            log.warn("{host} cannot be looked up: {why}", host=name.host, why=why)

    def _forget_unused(self, now: float) -> None:
        """Forget names that were not used lately, such as those of former configurations."""
        for name in list(self._names.values()):
            if name.began is None and now - name.asked_at >= KEPT_FOR:
                del self._names[name.host]

    @staticmethod
    def _end_timer(name: _Name) -> None:
        timer, name.timer = name.timer, None
        if timer is not None:
            timer.cancel()
