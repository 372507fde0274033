# Compiled: see docs/decisions/compiled.md
"""The store in Redis, shared exactly by several gateways; with a fallback while Redis is unavailable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b
from importlib.resources import files
from math import ceil
from struct import Struct, unpack
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.exchange import Waiting
from apigw.errors import LimitsUnavailable
from apigw.policy.limits.arithmetic import (
    SECOND,
    Checks,
    Decision,
    Limit,
    Standing,
    allow,
    compile_limit,
    decide,
    unix_seconds,
)
from apigw.policy.limits.memory import MAX_KEYS, MemoryStore
from apigw.policy.limits.model import RateLimit
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import Execute, RedisLink, Script, within

VERSION = 1
"""Version of the stored format. It is part of each key, so that different versions can share one Redis."""

MAX_REFUSED = 16_384
"""Addresses of which it is remembered that they are refused; each costs some 200 bytes."""

_REQUEST = Struct("<Bq")
_ONE_CHECK = _REQUEST.pack(1, 0)
_PEEK = 128
_PROBE = compile_limit(RateLimit("/", 2**31 - 1, 1.0, "endpoint", "counter"))

log = Logger(namespace=__name__)

Outcome = Decision | LimitsUnavailable | None
"""The result of checks. ``None``: every limit is ``open``, and Redis is unavailable."""


class Pending(Waiting):
    """Checks in progress in Redis. ``then`` is called with the outcome, unless they are cancelled.

    A replacement of a Deferred with one callback, at a sixth of the cost: each exchange with a limit makes one.
    """

    def __init__(self, checks: Checks, moment: int, counted: int, then: Callable[[Outcome], object]) -> None:
        self.checks = checks
        self.moment = moment
        self.counted = counted
        self._then: Callable[[Outcome], object] | None = then

    def cancel(self) -> None:
        self._then = None

    def tell(self, outcome: Outcome) -> None:
        then, self._then = self._then, None
        if then is None:
            return
        try:
            then(outcome)
        except Exception:
            log.failure("a check of the rate limits was answered to one who failed")  # the others are still to be told


class Refused:
    """Until when, in the clock's seconds, a limit has refused a caller, and when its window ends, in Unix seconds.

    ``number`` is what the limit was then: a reload may have raised it, and its counts go on.
    """

    def __init__(self, number: int, until: float, reset: int) -> None:
        self.number = number
        self.until = until
        self.reset = reset


@lru_cache(4096)
def _digest(name: bytes) -> bytes:
    """What stands for a caller in Redis: nobody reads an address or a name there."""
    return blake2b(name, digest_size=16).hexdigest().encode()


class RedisStore:
    """Counts in Redis. The checks of one turn of the reactor are sent in one call of one atomic Lua script.

    The time is that of the server. If Redis does not answer in time, each limit follows its ``on_store_failure``:
    ``local`` counts in this process, ``open`` does not count, ``closed`` refuses the exchange.
    """

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        link: RedisLink,
        reactor: Any,
        now: Callable[[], float],
        on_store_up: Callable[[bool], None] = lambda up: None,
        on_fallback: Callable[[], None] = lambda: None,
        max_keys: int = MAX_KEYS,
        clock: IReactorTime | None = None,
    ) -> None:
        """Sets the link's ``probe`` and ``on_up``. The link's owner starts and stops it.

        ``on_store_up`` is called with each change of availability, ``on_fallback`` for each check that was decided
        without Redis. ``clock`` is for deadlines and for the windows of the fallback, by default the reactor. ``now``
        is Unix time, for the end of the window in decisions of the fallback.
        """
        self._reactor = reactor
        self._clock: IReactorTime = reactor if clock is None else clock
        self._prefix = b"%b:limit:%d:" % (link.prefix.encode(), VERSION)
        self._script = Script((files("apigw.policy.limits") / "sliding_window.lua").read_bytes())
        self._on_fallback = on_fallback
        self._local = MemoryStore(self._clock, now, max_keys)
        self._link = link
        link.probe = self._probe
        link.on_up = on_store_up
        self._waiting: list[Pending] = []
        self._refused: dict[bytes, Refused] = {}

    @property
    def up(self) -> bool:
        """Whether checks are sent to Redis at present."""
        return self._link.up

    def __len__(self) -> int:
        """Number of keys in the fallback store."""
        return len(self._local)

    def keys_of(self, limit: Limit) -> int:
        return self._local.keys_of(limit)

    def start(self) -> Deferred[None]:
        """Start to remove expired keys of the fallback store."""
        return self._local.start()

    def stop(self) -> Deferred[None]:
        return self._local.stop()

    def check(self, checks: Checks, at: float | None = None) -> Deferred[Decision | None]:
        """Test all, then count all, unless one refuses. ``None`` if every limit is ``open`` and Redis is
        unavailable.

        Fails with ``LimitsUnavailable`` if one is ``closed`` then. ``at``, in Unix seconds, replaces the time of the
        server.
        """
        return self._ask(checks, at, 1)

    def peek(self, checks: Checks, at: float | None = None) -> Deferred[Decision | None]:
        """The decision that ``check`` would make, without counting."""
        return self._ask(checks, at, 0)

    def ask(self, checks: Checks, then: Callable[[Outcome], object]) -> Pending | Decision | None:
        """Like ``check``, with a callback. Without Redis it returns at once, or raises ``LimitsUnavailable``."""
        if not self._link.takes_calls:
            return self._without(checks, 1)
        return self._put(Pending(checks, 0, 1, then))

    def spent(self, checks: Checks, at: float) -> Decision | None:
        """The refusal, where one is known without asking Redis: the last one until it ends, and what is counted here.

        ``at`` is in the clock's seconds. Only limits of addresses are remembered.
        """
        for limit, key in checks:
            name = limit.id + key
            known = self._refused.get(name)
            if known is not None:
                if at < known.until and limit.limit <= known.number:
                    return Decision(False, limit, 0, known.reset, ceil(known.until - at))
                del self._refused[name]
        if not self._link.takes_calls:
            local = [check for check in checks if check[0].on_store_failure == "local"]
            if local:
                return self._local.spent(local, at)
        return None

    def _remember(self, checks: Checks, standings: list[Standing], time: int) -> None:
        now = self._clock.seconds()
        for (limit, key), standing in zip(checks, standings, strict=True):
            if limit.scope == "ip" and standing.used >= limit.limit:
                name = limit.id + key
                self._refused.pop(name, None)
                until = now + (standing.passes - time) / SECOND
                self._refused[name] = Refused(limit.limit, until, unix_seconds(standing.resets))
                if len(self._refused) > MAX_REFUSED:
                    del self._refused[next(iter(self._refused))]

    def _ask(self, checks: Checks, at: float | None, counted: int) -> Deferred[Decision | None]:
        if not self._link.takes_calls:
            try:
                return succeed(self._without(checks, counted))
            except LimitsUnavailable as error:
                return fail(error)
        moment = 0 if at is None else int(at * SECOND + 0.5)
        answer: Deferred[Decision | None] = Deferred()
        self._put(Pending(checks, moment, counted, partial(_fire, answer)))
        return answer

    def _put(self, pending: Pending) -> Pending:
        if not self._waiting:
            turn = getattr(self._reactor, "writes_of_turn", None)
            if turn is None:
                self._reactor.callLater(0, self.send_held)
            else:
                turn.append(self)
        self._waiting.append(pending)
        return pending

    def send_held(self) -> None:
        """Send the checks of this turn; called by the reactor at its end."""
        batch, self._waiting = self._waiting, []
        keys: list[bytes] = []
        packed: list[bytes] = []
        for pending in batch:
            checks, moment, counted = pending.checks, pending.moment, pending.counted
            plain = counted and not moment and len(checks) == 1
            packed.append(_ONE_CHECK if plain else _REQUEST.pack(len(checks) | (0 if counted else _PEEK), moment))
            for limit, key in checks:
                keys.append(self._key(limit, key))
                packed.append(limit.packed)
        answer = self._link.evaluate(self._script, keys, b"".join(packed))
        answer.addCallback(self._answer, batch, len(keys))
        answer.addErrback(self._answer_without, batch)

    def _key(self, limit: Limit, key: bytes) -> bytes:
        return self._prefix + _digest(limit.id + key)

    def _answer(self, reply: object, batch: list[Pending], checks: int) -> None:
        try:
            numbers = numbers_of(reply, checks)
        except RedisUnavailable as error:
            self._link.give_up(str(error))
            raise
        time: int = numbers[0]
        place = 1
        for pending in batch:
            standings: list[Standing] = []
            for limit, _ in pending.checks:
                standings.append(limit.told(numbers[place], numbers[place + 1], numbers[place + 2]))
                place += 3
            only = standings[0]
            if len(standings) == 1 and only.used < only.limit.limit:
                pending.tell(allow(only, pending.counted, 0))
            else:
                decision = decide(standings, pending.moment or time, pending.counted, 0)
                if not decision.allowed and not pending.moment:
                    self._remember(pending.checks, standings, time)
                pending.tell(decision)

    def _answer_without(self, failure: Failure, batch: list[Pending]) -> None:
        for pending in batch:
            try:
                outcome: Outcome = self._without(pending.checks, pending.counted)
            except LimitsUnavailable as error:
                outcome = error
            pending.tell(outcome)

    def _without(self, checks: Checks, counted: int) -> Decision | None:
        self._on_fallback()
        if any(limit.on_store_failure == "closed" for limit, _ in checks):
            raise LimitsUnavailable("The store of the rate limits does not answer.", [(b"retry-after", b"1")])
        local = [check for check in checks if check[0].on_store_failure == "local"]
        if not local:
            return None
        return self._local.check(local) if counted else self._local.peek(local)

    async def _probe(self, execute: Execute) -> None:
        """What a check does, writing included: a server that is full or a replica is not up because it answers."""
        await execute(b"SCRIPT", b"LOAD", self._script.text)
        key, request = self._prefix + b"probe", _ONE_CHECK + _PROBE.packed
        checked = execute(b"EVALSHA", self._script.digest, b"1", key, request)
        numbers_of(await within(checked, self._link.timeout, self._clock, "it does not answer a check"), 1)


def numbers_of(reply: object, checks: int) -> tuple[int, ...]:
    """Unpack the script's reply: the server's time, and three numbers for each check. Raises ``RedisUnavailable``."""
    if not isinstance(reply, bytes) or len(reply) != 8 * (1 + 3 * checks):
        raise RedisUnavailable("its replies to checks have the wrong length or kind")
    return unpack(f"<{1 + 3 * checks}q", reply)


def _fire(answer: Deferred[Decision | None], outcome: Outcome) -> None:
    if not answer.called:  # cancelled
        if isinstance(outcome, LimitsUnavailable):
            answer.errback(outcome)
        else:
            answer.callback(outcome)
