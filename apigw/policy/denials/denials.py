"""The denials that hold in this process, and what keeps them the same in all others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.machine import Answer, Machine
from apigw.contract.principal import key_of
from apigw.errors import Overloaded
from apigw.policy.denials.denial import Denial
from apigw.policy.denials.in_redis import InRedis
from apigw.policy.denials.lasting import Lasting
from apigw.policy.denials.series import DenialSeries
from apigw.policy.denials.store import Full, InPage, Store
from apigw.policy.denials.watch import Watch
from apigw.redis.errors import RedisUnavailable

LOOKS_EVERY = 1.0
"""Seconds between two looks at the page, and at Redis."""

SETTLES = 3.0
"""Seconds for which one that was added here is not taken for removed elsewhere, if Redis does not have it."""

AGAIN = 0.05
"""Seconds until the page is read again, if its lock was not to be had."""

ASKED_AT_START = 40
"""Times that a worker that starts asks Redis, which may have no connection yet: two seconds. Later its looks do."""

AT_START = 250
"""Times that a worker that starts tries to read the page: half a second, as it waits 2 ms for the lock each time."""

QUESTION = "denials"

log = Logger()


@frozen
class Told:
    """``cut``: how many tunnels and streams were ended. ``late``: how many workers have not answered in time."""

    cut: int
    late: int


class Denials:
    """``now`` is Unix time. The worker that checks speaks with Redis; all others know by the page."""

    def __init__(
        self,
        clock: Any,
        now: Callable[[], float],
        machine: Machine,
        store: Store,
        redis: InRedis | None,
        watch: Watch,
        lasting: Lasting,
        series: DenialSeries,
        changed: Callable[[bool], object] = lambda some: None,
    ) -> None:
        """``changed`` is told whether there are any, after each change."""
        self._clock = clock
        self._now = now
        self._machine = machine
        self._store = store
        self._redis = redis
        self._watch = watch
        self._lasting = lasting
        self._series = series
        self._changed = changed
        self._holding: dict[bytes, Denial] = {}
        self._mark: bytes | None = None
        self._reads_redis = False
        self._up = True
        self._next: IDelayedCall | None = None
        self._asking: Deferred[None] | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        machine.answers(QUESTION, lambda _: self._read())
        machine.when_joined(self._read_if_changed)

    def start(self) -> None:
        """Before anybody is served: so it may wait for the lock, and those who are denied are refused from then on."""
        for _ in range(AT_START):
            with suppress(Full):
                self._use(self._store.all())
                break
        self._looking.start(LOOKS_EVERY)
        if self._redis is not None and not self._holding:
            self._asking = self._ask(self._redis).addErrback(_unless_stopped)

    @inlineCallbacks
    def _ask(self, redis: InRedis) -> Generator[Any, Any, None]:
        """A gateway that starts knows none yet, and it takes a second until it is certain which worker checks: so each
        asks Redis by itself, as soon as there is a connection."""
        for _ in range(ASKED_AT_START):
            try:
                found = yield redis.all(self._now())
            except RedisUnavailable:
                yield deferLater(self._clock, AGAIN)
            else:
                missing = {name: each for name, each in found.items() if name not in self._holding}
                if missing:
                    self._try(missing)
                    yield self._read()
                return

    def stop(self) -> None:
        if self._looking.running:
            self._looking.stop()
        if self._asking is not None:
            self._asking.cancel()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def listed(self) -> list[Denial]:
        """Those that hold, the newest first."""
        now = self._now()
        return sorted((each for each in self._holding.values() if each.until > now), key=lambda each: -each.since)

    @property
    def store_up(self) -> bool | None:
        """Whether Redis takes part; None without one. Known to the worker that checks."""
        return None if self._redis is None else self._up

    @inlineCallbacks
    def add(self, denial: Denial) -> Generator[Any, Any, tuple[Denial, Told]]:
        """Deny; fires with the denial, and what the workers said. Fails with ``Overloaded``."""
        self._put(denial)
        told = yield self._tell()
        if self._redis is not None:
            try:
                room = yield self._redis.add(evolve(denial, everywhere=True), self._now())
            except RedisUnavailable:
                pass  # the next look passes it on
            else:
                if room:
                    denial = evolve(denial, everywhere=True)
                    self._put(denial)
                    yield self._tell()
        return denial, told

    @inlineCallbacks
    def remove(self, denial: Denial) -> Generator[Any, Any, bool]:
        """Whether one of this name held. Fails with ``Overloaded`` while Redis is away, as it holds elsewhere too."""
        held = self._holding.get(denial.name)
        if held is None:
            return False
        if self._redis is not None:
            try:
                yield self._redis.remove({held.name: held}, self._now())
            except RedisUnavailable:
                raise Overloaded("Redis is away, so the denial goes on to hold on all gateways.") from None
        try:
            self._store.remove([held.name])
        except Full:
            raise _unavailable() from None
        yield self._tell()
        return True

    def _put(self, denial: Denial) -> None:
        try:
            self._store.put([denial])
        except Full:
            raise _unavailable() from None

    def _tell(self) -> Deferred[Told]:
        """Have all workers read what has changed."""

        def told(answers: list[Answer]) -> Told:
            cut = [answer.value for answer in answers if answer.value is not None]
            return Told(sum(cut), len(answers) - len(cut))

        return self._machine.ask(QUESTION, silent=True).addCallback(told)

    def _read(self) -> Deferred[int]:
        """Use what is stored. Fires when it is in use, with how many tunnels and streams that has cut."""
        try:
            stored = self._store.all()
        except Full:
            return deferLater(self._clock, AGAIN).addCallback(lambda _: self._read())
        return succeed(self._use(stored))

    def _read_if_changed(self) -> Deferred[int]:
        return self._read() if self._store.changed() else succeed(0)

    def _use(self, stored: Mapping[bytes, Denial]) -> int:
        now = self._now()
        self._holding = holding = {name: each for name, each in stored.items() if each.until > now}
        of = {kind: [each for each in holding.values() if each.kind == kind] for kind in ("subject", "key", "token")}
        self._watch.use(
            [each.value for each in holding.values() if each.kind == "address"],
            [each.value for each in of["subject"] if each.provider is None],
            [key_of(each.provider, each.value) for each in of["subject"] if each.provider is not None],
            [each.value.removeprefix("sha256:") for each in of["key"]],
            [each.value.removeprefix("sha256:") for each in of["token"]],
        )
        self._series.hold(holding.values())
        self._changed(bool(holding))
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if holding:
            first = min(each.until for each in holding.values())
            self._next = self._clock.callLater(max(0.0, first - now), self._over)
        return self._lasting.review() if holding else 0

    def _over(self) -> None:
        """One has ended."""
        self._next = None
        now = self._now()
        with suppress(Full):  # it is ignored from now on, stored or not
            self._store.remove([name for name, each in self._holding.items() if each.until <= now])
        self._use(self._holding)

    @inlineCallbacks
    def _look(self) -> Generator[Any, Any, None]:
        """The next look waits for this one: whatever it meets, there is one at a time."""
        yield self._read_if_changed()
        if not self._machine.checks:
            self._reads_redis = False
            self._set_up(True)
            return
        store = self._store
        if isinstance(store, InPage) and self._holding and store.lost and not store.changed():
            # A worker died while it wrote there.
            self._try(self._holding)
        if self._redis is not None:
            yield self._meet(self._redis).addErrback(lambda failure: log.failure("denials in Redis", failure=failure))

    def _try(self, denials: Mapping[bytes, Denial]) -> None:
        try:
            self._store.put(denials.values())
        except Full:
            log.warn("there is no room for all denials")

    @inlineCallbacks
    def _meet(self, redis: InRedis) -> Generator[Any, Any, None]:
        """Be of one mind with Redis."""
        try:
            mark = yield redis.mark()
            now = self._now()
            ours = {name: each for name, each in self._holding.items() if each.until > now}
            missing = [each for each in ours.values() if not each.everywhere or mark is None]
            for each in missing:
                yield redis.add(evolve(each, everywhere=True), now)
            if missing:
                mark = yield redis.mark()
            if not self._reads_redis or mark != self._mark:
                found = yield redis.all(now)
                self._reads_redis, self._mark = True, mark
                self._replace(found)
        except RedisUnavailable:
            self._set_up(False)
        else:
            self._set_up(True)

    def _replace(self, found: Mapping[bytes, Denial]) -> None:
        """What is in Redis holds, and what has not got there yet."""
        gone = [each for name, each in self._holding.items() if name not in found and each.everywhere]
        young = [each for each in gone if self._now() - each.since < SETTLES]
        if young:  # perhaps added since ``found`` was read: the next look tells
            self._reads_redis = False
        new = [each for name, each in found.items() if self._holding.get(name) != each]
        if not gone and not new:
            return
        try:
            self._store.remove([each.name for each in gone if each not in young])
            self._store.put(new)
        except Full:
            log.warn("there is no room for all denials")
        self._tell().addErrback(lambda _: None)  # the master does not answer: each worker looks by itself

    def _set_up(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            self._series.store_up(up)
            if not up:
                log.warn("denials: Redis is away; those that are known go on to hold")


def _unless_stopped(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("denials in Redis", failure=failure)


def _unavailable() -> Overloaded:
    return Overloaded(
        "There is no room for another denial, or the shared memory is busy: try again.", [(b"retry-after", b"1")]
    )
