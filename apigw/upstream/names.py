"""The addresses of names, looked up again and again: for targets ``dns`` and ``srv``.

A name is looked up when its TTL is over. What was found last is kept where that fails. With several workers the checker
looks names up, and the others read its answers in the shared page (docs/decisions/target-names.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import asdict, define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.ops.metrics import LookupSeries
from apigw.shared.page import Page
from apigw.shared.records import Busy
from apigw.upstream.name_servers import MOST, Address, Found, NameServers

LEAST_TTL = 1.0
MOST_TTL = 300.0
"""Bounds of a TTL, in seconds."""
LONGEST_PAUSE = 30.0
"""Seconds from one failure to the next attempt, at most; the first pause is ``LEAST_TTL``, each further one is twice
as long."""
KEPT_WHEN_NONE = 30.0
"""Seconds for which the last addresses are used after an answer that there are none (``hold nx`` of HAProxy)."""
KEPT_WHEN_FAILED = 600.0
"""Seconds for which they are used where there is no answer, as those of other names (``resolver.KEPT_FOR``)."""
OVERDUE = 5.0
"""Seconds after which a worker looks up by itself what the checker should have: its lease is 3 s."""

log = Logger()

Told = Callable[[tuple[Address, ...]], object]
"""Gets the addresses of a name, whenever they may have changed; and none, if the first lookup has ended without any."""


@frozen(eq=False)
class Following:
    """Somebody who wants to know the addresses of a name; ``Names.leave`` ends it."""

    name: _Name
    told: Told


@define(eq=False)
class _Name:
    kind: str
    host: str
    found: tuple[Address, ...] = ()
    found_at: float = 0.0
    """When the addresses were confirmed last."""
    due: float = 0.0
    """When the next lookup is due, wherever it is made."""
    known: bool = False
    """Whether a lookup has ended."""
    pause: float = LEAST_TTL
    failing: bool = False
    capped: bool = False
    seen: bytes = b""
    """What was read last from the page."""
    followers: list[Following] = field(factory=list)
    call: IDelayedCall | None = None
    looking: Deferred[Any] | None = None

    @property
    def key(self) -> bytes:
        return f"{self.kind} {self.host}".encode()


class Names:
    """``random`` gives numbers from 0 to 1: lookups come up to a tenth early, so that those of many names spread."""

    def __init__(
        self,
        reactor: Any,
        servers: NameServers,
        series: LookupSeries,
        random: Callable[[], float],
        page: Page | None = None,
    ) -> None:
        self._reactor = reactor
        self._servers = servers
        self._series = series
        self._random = random
        self._page = page
        self._names: dict[tuple[str, str], _Name] = {}
        self._checks = page is None

    def stop(self) -> None:
        for name in self._names.values():
            self._rest(name)
        self._names.clear()

    def begin(self) -> None:
        """This worker is the one that looks names up, from now on."""
        self._checks = True
        for name in self._names.values():
            self._schedule(name)

    def end(self) -> None:
        """Another worker does."""
        self._checks = self._page is None
        for name in self._names.values():
            self._schedule(name)

    def follow(self, kind: str, host: str, told: Told) -> Following:
        """Call ``told`` with the addresses of ``host``, at once if they are known. ``kind`` is ``dns`` or ``srv``."""
        host = host.lower()
        name = self._names.get((kind, host))
        if name is None:
            name = self._names[kind, host] = _Name(kind, host)
            self._read(name)
            self._schedule(name)
        following = Following(name, told)
        name.followers.append(following)
        if name.known:
            told(name.found)
        return following

    def leave(self, following: Following) -> None:
        name = following.name
        name.followers.remove(following)
        if not name.followers:
            self._rest(name)
            self._names.pop((name.kind, name.host), None)

    def look(self) -> None:
        """Notice what other workers have found. Called twice a second if there are others."""
        if not self._checks:
            for name in list(self._names.values()):
                if self._read(name):
                    self._schedule(name)
                    self._tell(name)

    # Lookups.

    def _schedule(self, name: _Name) -> None:
        """See that it is looked up when that is due: by this worker, if no other does."""
        if name.call is not None:
            name.call.cancel()
        if name.looking is not None:
            name.call = None
            return
        # What nobody has looked up yet does not wait for the checker, which may just begin itself.
        wait = name.due - self._reactor.seconds() + (0.0 if self._checks or not name.known else OVERDUE)
        name.call = self._reactor.callLater(max(0.0, wait), self._begin, name)

    def _rest(self, name: _Name) -> None:
        call, name.call = name.call, None
        if call is not None:
            call.cancel()
        looking, name.looking = name.looking, None
        if looking is not None:
            self._series.of_targets -= 1
            looking.cancel()

    def _begin(self, name: _Name) -> None:
        name.call = None
        began = self._reactor.seconds()
        self._series.of_targets += 1
        name.looking = looking = self._servers.look_up(name.kind, name.host)
        looking.addBoth(self._ended, name, looking, began)

    def _ended(self, result: Found | Failure, name: _Name, looking: Deferred[Any], began: float) -> None:
        if name.looking is not looking:  # it was given up
            return
        name.looking = None
        now = self._reactor.seconds()
        self._series.of_targets -= 1
        found = isinstance(result, Found) and bool(result.addresses)
        self._series.ended(found, now - began)
        if isinstance(result, Found) and result.addresses:
            self._succeeded(name, result, now)
        elif isinstance(result, Found):
            self._failed(name, now, KEPT_WHEN_NONE, "it has no addresses")
        else:
            self._failed(name, now, KEPT_WHEN_FAILED, result.getErrorMessage())
        name.known = True
        self._write(name, now)
        self._schedule(name)
        self._tell(name)

    def _succeeded(self, name: _Name, result: Found, now: float) -> None:
        if name.failing:
            log.info("{host} has addresses again", host=name.host)
        name.failing = False
        name.pause = LEAST_TTL
        # A family of which nothing was heard is not gone.
        kept = [each for each in name.found if each.family in result.unknown]
        name.found = self._bounded(name, [*result.addresses, *kept])
        name.found_at = now
        ttl = min(max(result.ttl, LEAST_TTL), MOST_TTL)
        name.due = now + max(LEAST_TTL, ttl * (1 - self._random() / 10))

    def _failed(self, name: _Name, now: float, kept_for: float, why: str) -> None:
        if name.found and now - name.found_at >= kept_for:
            name.found = ()
            log.warn("the last addresses of {host} are not used any more: {why}", host=name.host, why=why)
        elif name.found:
            self._series.old_used(1)
        if not name.failing:
            name.failing = True
            log.warn("{host} cannot be looked up: {why}", host=name.host, why=why)
        name.due = now + name.pause
        name.pause = min(2 * name.pause, LONGEST_PAUSE)

    def _bounded(self, name: _Name, addresses: list[Address]) -> tuple[Address, ...]:
        """Without repetitions, in a fixed order, at most ``MOST``: if there are more, those that were used before."""
        each = {(address.host, address.port): address for address in addresses}
        if len(each) <= MOST:
            name.capped = False
            return tuple(each[key] for key in sorted(each))
        if not name.capped:
            name.capped = True
            said = "{host} has {number} addresses, of which {most} are used"
            log.warn(said, host=name.host, number=len(each), most=MOST)
        before = {(address.host, address.port) for address in name.found}
        chosen = sorted(each, key=lambda key: (key not in before, key))[:MOST]
        return tuple(each[key] for key in sorted(chosen))

    def _tell(self, name: _Name) -> None:
        for following in list(name.followers):
            following.told(name.found)

    # The shared page.

    def _write(self, name: _Name, now: float) -> None:
        if self._page is None:
            return
        data = {"found": [asdict(each) for each in name.found], "at": name.found_at, "due": name.due}
        name.seen = json.dumps(data).encode()
        try:
            self._page.names.put(name.key, b"names", name.seen, int(now + KEPT_WHEN_FAILED + MOST_TTL), int(now))
        except Busy:
            log.warn("{host}: other workers look it up themselves, as the page was not to be had", host=name.host)

    def _read(self, name: _Name) -> bool:
        """Take what another worker has found. Whether that is new."""
        if self._page is None:
            return False
        try:
            read = self._page.names.get(name.key, int(self._reactor.seconds()))
        except Busy:
            return False
        if read is None or read == name.seen:
            return False
        data = json.loads(read)
        if data["due"] <= name.due and name.known:
            return False
        name.seen = read
        name.found = tuple(Address(**each) for each in data["found"])
        name.found_at, name.due, name.known = data["at"], data["due"], True
        return True
