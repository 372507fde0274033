# Compiled: see docs/decisions/compiled.md
"""The store in Redis, shared exactly by several gateways; with a fallback while Redis is unavailable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from hashlib import blake2b
from importlib.resources import files
from os import urandom
from struct import Struct, unpack
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.exchange import Waiting
from apigw.errors import LimitsUnavailable
from apigw.policy.limits.arithmetic import SECOND, Checks, Decision, Standing, allow, compile_limit, decide
from apigw.policy.limits.concurrent import HELD, LEASE, OVER, RENEWAL, Claim, ClaimStore, ConcurrentLimit
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.model import RateLimit
from apigw.policy.limits.refusals import Refusals
from apigw.redis.errors import RedisUnavailable
from apigw.redis.link import Execute, RedisLink, Script, within

VERSION: Final = 1
"""Version of the stored format. It is part of each key, so that different versions can share one Redis."""

_REQUEST: Final = Struct("<Bq")
_ONE_CHECK: Final = _REQUEST.pack(1, 0)
_LEASE: Final = Struct("<q")
_RENEWED: Final = _LEASE.pack(int(LEASE * SECOND))
_ENDED: Final = _LEASE.pack(0)
_NUMBER: Final = Struct("<Q")
_AT_A_TIME: Final = 1_000  # leases renewed in one call, which takes Redis a millisecond
_PEEK: Final = 128
_PROBE: Final = compile_limit(RateLimit("/", 2**31 - 1, 1.0, scope="endpoint", algorithm="counter"))

log = Logger(namespace=__name__)

Outcome = Decision | LimitsUnavailable | None
"""The result of checks. ``None``: every limit is ``open``, and Redis is unavailable."""


class Pending(Waiting):
    """Checks in progress in Redis. ``then`` is called with the outcome, unless they are cancelled.

    A replacement of a Deferred with one callback, at a sixth of the cost: each exchange with a limit makes one.
    """

    def __init__(
        self, checks: Checks, moment: int, counted: int, then: Callable[[Outcome], object], claim: Claim | None = None
    ) -> None:
        self.checks = checks
        self.claim = claim
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
            log.failure("an exchange failed at the decision of its limits")  # the others still get theirs


@lru_cache(4096)
def _digest(name: bytes) -> bytes:
    """What stands for a caller in Redis: nobody reads an address or a name there."""
    return blake2b(name, digest_size=16).hexdigest().encode()


class RedisStore(ClaimStore):
    """Counts in Redis. The checks of one turn of the reactor are sent in one call of one atomic Lua script.

    The time is that of the server. If Redis does not answer in time, each limit follows its ``on_store_failure``:
    ``local`` counts in this process, ``open`` does not count, ``closed`` refuses the exchange.

    A place is a lease there, which this gateway renews while it holds it. Those that it holds are counted here too: so
    it knows them when Redis fails, and takes them again when Redis is back.
    """

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        link: RedisLink,
        reactor: Any,
        now: Callable[[], float],
        on_store_up: Callable[[bool], None] = lambda up: None,
        on_fallback: Callable[[], None] = lambda: None,
        clock: IReactorTime | None = None,
        local: LocalStore | None = None,
    ) -> None:
        """Sets the link's ``probe`` and ``on_up``. The link's owner starts and stops it.

        ``on_store_up`` is called with each change of availability, ``on_fallback`` for each check that is decided by
        ``local``, by default a store of this process: its windows go by ``clock``, by default the reactor, as deadlines
        do. ``now`` is Unix time, for the end of these windows in decisions.
        """
        self._reactor = reactor
        self._clock: IReactorTime = reactor if clock is None else clock
        self._prefix = b"%b:limit:%d:" % (link.prefix.encode(), VERSION)
        self._script = Script((files("apigw.policy.limits") / "sliding_window.lua").read_bytes())
        self._on_fallback = on_fallback
        self._local: LocalStore = MemoryStore(self._clock, now) if local is None else local
        self._link = link
        link.probe = self._probe
        link.on_up = self._link_up
        self._on_store_up = on_store_up
        self._waiting: list[Pending] = []
        self._gateway = urandom(8)
        self._claims = 0
        self._held: dict[bytes, Claim] = {}
        self._ended: list[Claim] = []
        self._down_since = -LEASE
        self._unsaid: list[Claim] = []  # ended while Redis could not be told
        self._renewing = LoopingCall(self.renew)
        self._renewing.clock = self._clock
        self._refusals = Refusals(self._clock)

    @property
    def up(self) -> bool:
        """Whether checks are sent to Redis at present."""
        return self._link.up

    def __len__(self) -> int:
        """Number of keys in the fallback store."""
        return len(self._local)

    def keys(self) -> Mapping[bytes, int]:
        return self._local.keys()

    def taken(self, limit: ConcurrentLimit) -> tuple[int, int]:
        """The callers that hold places of a limit through this gateway, and the number of these places."""
        return self._local.taken(limit)

    def start(self) -> Deferred[None]:
        """Start to remove expired keys of the fallback store, and to renew leases."""
        self._renewing.start(RENEWAL, now=False)
        return self._local.start()

    def stop(self) -> Deferred[None]:
        if self._renewing.running:
            self._renewing.stop()
        return self._local.stop()

    def check(self, checks: Checks, at: float | None = None) -> Deferred[Decision | None]:
        """Test all, then count all, unless one refuses. ``None`` if every limit is ``open`` and Redis is
        unavailable.

        Fails with ``LimitsUnavailable`` if one is ``closed`` then. ``at``, in Unix seconds, replaces the time of the
        server.
        """
        return self._ask(checks, at, 1)

    def admit(self, checks: Checks, claim: Claim, at: float | None = None) -> Deferred[Decision | None]:
        """``check``, and take the places of ``claim``: both, or neither. See ``MemoryStore.admit``."""
        return self._ask(checks, at, 1, claim)

    def peek(self, checks: Checks, at: float | None = None) -> Deferred[Decision | None]:
        """The decision that ``check`` would make, without counting."""
        return self._ask(checks, at, 0)

    def ask(
        self, checks: Checks, then: Callable[[Outcome], object], claim: Claim | None = None
    ) -> Pending | Decision | None:
        """Like ``check``, or ``admit`` with a claim, but with a callback. Without Redis it returns at once, or raises
        ``LimitsUnavailable``."""
        if not self._link.takes_calls:
            return self._without(checks, 1, claim)
        return self._put(Pending(checks, 0, 1, then, claim))

    def spent(self, checks: Checks, at: float) -> Decision | None:
        """The refusal, where one is known without asking Redis: the last one until it ends, and what is counted here.

        ``at`` is in the clock's seconds. Only limits of addresses are remembered.
        """
        known = self._refusals.of(checks, at)
        if known is None and not self._link.takes_calls:
            local = [check for check in checks if check[0].on_store_failure == "local"]
            if local:
                return self._local.spent(local, at)
        return known

    def free(self, claim: Claim) -> None:
        self._local.free(claim)
        if self._held.pop(claim.name, None) is not None:
            self._end_lease(claim)

    def renew(self) -> None:
        """Renew every lease, and take those again that Redis has lost; end those that it has not been told of."""
        if not self._link.takes_calls:
            return
        unsaid, self._unsaid = self._unsaid, []
        self._tell(list(self._held.values()), _RENEWED)
        self._tell(unsaid, _ENDED)

    def _tell(self, claims: list[Claim], until: bytes) -> None:
        for start in range(0, len(claims), _AT_A_TIME):
            keys: list[bytes] = []
            leases = self._leases(claims[start : start + _AT_A_TIME], until, keys)
            # The link says why it failed; leases that were not ended end by themselves.
            self._link.evaluate(self._script, keys, b"", leases).addErrback(lambda _: None)

    def _ask(
        self, checks: Checks, at: float | None, counted: int, claim: Claim | None = None
    ) -> Deferred[Decision | None]:
        if not self._link.takes_calls:
            try:
                return succeed(self._without(checks, counted, claim))
            except LimitsUnavailable as error:
                return fail(error)
        moment = 0 if at is None else int(at * SECOND + 0.5)
        answer: Deferred[Decision | None] = Deferred()
        self._put(Pending(checks, moment, counted, partial(_fire, answer), claim))
        return answer

    def _put(self, pending: Pending) -> Pending:
        if not self._waiting and not self._ended:
            self._at_end_of_turn()
        self._waiting.append(pending)
        claim = pending.claim
        if claim is not None:
            self._name(claim)
        return pending

    def _name(self, claim: Claim) -> None:
        self._claims += 1
        claim.name = self._gateway + _NUMBER.pack(self._claims)

    def _end_lease(self, claim: Claim) -> None:
        if self._link.takes_calls:
            if not self._waiting and not self._ended:
                self._at_end_of_turn()
            self._ended.append(claim)
        elif self._clock.seconds() - self._down_since < LEASE:  # else it has ended by itself
            self._unsaid.append(claim)

    def _at_end_of_turn(self) -> None:
        turn = getattr(self._reactor, "writes_of_turn", None)
        if turn is None:
            self._reactor.callLater(0, self.send_held)
        else:
            turn.append(self)

    def send_held(self) -> None:
        """Send the leases that ended in this turn, and its checks; called by the reactor at its end."""
        batch, self._waiting = self._waiting, []
        keys: list[bytes] = []
        packed: list[bytes] = []
        leases: list[bytes] = []
        ended, self._ended = self._ended, []
        if ended:
            leases.append(self._leases(ended, _ENDED, keys))
        asked = len(keys)
        for pending in batch:
            checks, moment, counted, claim = pending.checks, pending.moment, pending.counted, pending.claim
            plain = counted and not moment and len(checks) == 1 and claim is None
            number = len(checks) if claim is None else len(checks) + len(claim.wanted)
            packed.append(_ONE_CHECK if plain else _REQUEST.pack(number | (0 if counted else _PEEK), moment))
            for limit, key in checks:
                keys.append(self._key(limit.id, key))
                packed.append(limit.packed)
            if claim is not None:
                for concurrent, key in claim.wanted:
                    keys.append(self._key(concurrent.id, key))
                    packed.append(concurrent.packed)
                    packed.append(claim.name)
        answer = self._link.evaluate(self._script, keys, b"".join(packed), *leases)
        answer.addCallback(self._answer, batch, len(keys) - asked)
        answer.addErrback(self._answer_without, batch, ended)

    def _leases(self, claims: list[Claim], until: bytes, keys: list[bytes]) -> bytes:
        """What tells the script of the leases of ``claims``, whose keys are added to ``keys``."""
        packed: list[bytes] = []
        for claim in claims:
            for limit, key in claim.wanted:
                keys.append(self._key(limit.id, key))
                packed.append(until)
                packed.append(claim.name)
        return b"".join(packed)

    def _key(self, identity: bytes, key: bytes) -> bytes:
        return self._prefix + _digest(identity + key)

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
            claim = pending.claim
            decision: Decision | None
            if claim is not None:
                claim.full = None
                for concurrent, _ in claim.wanted:
                    if claim.full is None and numbers[place] >= concurrent.most:
                        claim.full = concurrent
                    place += 3
                decision = self._admitted(claim, standings, pending.moment or time)
            elif len(standings) == 1 and standings[0].used < standings[0].limit.limit:
                decision = allow(standings[0], pending.counted, 0)
            else:
                decision = decide(standings, pending.moment or time, pending.counted, 0)
            if decision is not None and not decision.allowed and not pending.moment:
                self._refusals.remember(pending.checks, standings, time)
            pending.tell(decision)

    def _admitted(self, claim: Claim, standings: list[Standing], moment: int) -> Decision | None:
        """The script takes places where nothing refuses them: so does this, and gives them back where nobody waits."""
        counted = 1 if claim.full is None else 0
        decision = decide(standings, moment, counted, 0) if standings else None
        if claim.full is None and (decision is None or decision.allowed):
            if claim.state == OVER:
                self._end_lease(claim)
            else:
                self._local.take(claim)
                self._held[claim.name] = claim
                claim.state = HELD
        return decision

    def _answer_without(self, failure: Failure, batch: list[Pending], ended: list[Claim]) -> None:
        self._unsaid += ended
        for pending in batch:
            try:
                outcome: Outcome = self._without(pending.checks, pending.counted, pending.claim)
            except LimitsUnavailable as error:
                outcome = error
            claim = pending.claim
            if claim is not None and claim.state != HELD:
                self._end_lease(claim)  # which Redis may have granted, and could not say
            pending.tell(outcome)

    def _without(self, checks: Checks, counted: int, claim: Claim | None = None) -> Decision | None:
        self._on_fallback()
        closed = any(limit.on_store_failure == "closed" for limit, _ in checks)
        if closed or (claim is not None and any(limit.on_store_failure == "closed" for limit, _ in claim.wanted)):
            raise LimitsUnavailable("The store of the rate limits does not answer.", [(b"retry-after", b"1")])
        local = [check for check in checks if check[0].on_store_failure == "local"]
        if claim is not None and claim.state != OVER:
            return self._admit_without(local, claim)
        if not local:
            return None
        return self._local.check(local) if counted else self._local.peek(local)

    def _admit_without(self, checks: Checks, claim: Claim) -> Decision | None:
        tested = [want for want in claim.wanted if want[0].on_store_failure == "local"]
        decision = self._local.admit_within(checks, claim, tested)
        if claim.state == HELD:
            if not claim.name:
                self._name(claim)
            self._held[claim.name] = claim  # Redis hears of it when it can be used
        return decision

    def _link_up(self, up: bool) -> None:
        self._on_store_up(up)
        self._down_since = self._clock.seconds()
        if up:
            self.renew()

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
