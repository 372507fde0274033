# Compiled: see docs/decisions/compiled.md
"""How much: rate limits as arithmetic, and the store that keeps their counts in this process.

A *check* is one limit and the key that it counts by. An exchange brings all of its checks at once: first all are
tested, then all are counted, so that a request which one limit refuses is not counted by any. Time is in whole
microseconds since the Unix epoch, in integers, so that this store and the one in Redis decide alike, to the
microsecond. A window is half open: what was counted at ``t`` has left it at ``t + window``. Within a key time never
runs backwards.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from socket import AF_INET, AF_INET6, inet_pton
from struct import Struct
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from apigw.config.model import RateLimit
from apigw.routing.pattern import Pattern, overlaps

SECOND: Final = 1_000_000
"""Microseconds."""

LARGEST_LIMIT = 2**31 - 1
LONGEST_WINDOW = 2**43 / SECOND
"""Seconds, some 101 days. Up to these two, the doubles of a Lua script reckon exactly."""

LOG_UP_TO = 1_000
"""``algorithm: auto`` keeps a log up to this limit, and counters above."""

MAX_KEYS = 1_000_000
"""Each costs some 150 bytes, and with ``log`` 8 more for each further request that is in the window."""

SWEEP_INTERVAL = 0.25
"""Seconds between two steps of the sweep; in a large store 192 of them visit every key."""

HEADERS = frozenset({b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"})
"""What a decision says of itself; a service's own limits would contradict it."""

Header = tuple[bytes, bytes]
State = Any
"""What is kept for a key. A log: its stamps in order, packed, or an array when they are many. A counter: an integer."""

_STAMP = Struct("=q")
_PACKED = Struct("<Bqq")
_PACKED_STAMPS = 64 * _STAMP.size
_COUNT_BITS: Final = 31
_COUNT_MASK: Final = 0x7FFFFFFF
_COUNTS_MASK: Final = 0x3FFFFFFFFFFFFFFF
# With this many tables a full store leaves each just below the size at which a dict doubles its room.
_TABLES = 192
_ONE_TABLE_UP_TO = 16_384


class Limit:
    """A configured quota, ready for requests; ``span`` is its window in microseconds.

    ``id`` is shared by whatever counts the same requests in the same way, so that counts survive a reload, even one
    that changes the number. ``header`` is ``X-RateLimit-Limit``; ``packed`` is for the script in Redis.
    """

    algorithm: ClassVar[str]
    code: ClassVar[int]

    def __init__(self, config: RateLimit) -> None:
        self.endpoint = config.endpoint
        self.limit = config.limit
        self.window = config.window
        self.scope = config.scope
        self.on_store_failure = config.on_store_failure
        self.pattern = Pattern.parse(config.endpoint)
        self.span = max(1, round(config.window * SECOND))
        identity = "\0".join((self.endpoint, self.scope, str(self.span), self.algorithm))
        self.id = blake2b(identity.encode(), digest_size=8).digest()
        self.header = (b"x-ratelimit-limit", b"%d" % self.limit)
        self.packed = _PACKED.pack(self.code, self.limit, self.span)

        self._reset = 0
        self._reset_header = (b"x-ratelimit-reset", b"0")

    def reset_header(self, reset: int) -> Header:
        """``X-RateLimit-Reset``. One after the other says the same: the last one is kept."""
        if reset != self._reset:
            self._reset = reset
            self._reset_header = (b"x-ratelimit-reset", b"%d" % reset)
        return self._reset_header

    def __repr__(self) -> str:
        return f"<{self.limit} per {self.window:g} s and {self.scope} of {self.endpoint}, {self.algorithm}>"

    def look(self, state: State | None, now: int) -> tuple[State, int, int, int, int]:
        """How things stand at ``now``: the state as of then, its clock, and what ``decide`` wants to know: how many are
        used, when the oldest of them leaves, and, if none is left, when a request would pass."""
        raise NotImplementedError

    def take(self, state: State, now: int) -> tuple[State, int, int] | None:
        """``look`` and ``count`` in one, for what happens almost always: the state after one more request, how many
        remain and when the oldest leaves; ``None`` where it takes more thought, and then nothing has been done."""
        raise NotImplementedError

    def standing(self, first: int, second: int, third: int) -> tuple[int, int, int]:
        """What ``decide`` wants to know, from the three numbers that the script in Redis tells of a key."""
        raise NotImplementedError

    def count(self, state: State, clock: int, used: int) -> State:
        """The state after one more request, from what ``look`` said."""
        raise NotImplementedError

    def over(self, state: State, now: int) -> bool:
        """Whether nothing of ``state`` matters any more."""
        raise NotImplementedError


class LogLimit(Limit):
    """Exact: one stamp for each counted request. No window of ``span``, however placed, has more than ``limit``."""

    algorithm: ClassVar[str] = "log"
    code: ClassVar[int] = 1

    def look(self, state: State | None, now: int) -> tuple[State, int, int, int, int]:
        if state is None:
            return b"", now, 0, now + self.span, 0
        stamps = state if type(state) is array else memoryview(state).cast("q")
        last = stamps[-1]
        clock = now if now > last else last
        gone = clock - self.span
        oldest = stamps[0]
        used = len(stamps)
        if oldest <= gone:
            first = bisect_right(stamps, gone)
            used -= first
            oldest = stamps[first] if used else clock
        return state, clock, used, oldest + self.span, stamps[-self.limit] + self.span if used >= self.limit else 0

    def take(self, state: State, now: int) -> tuple[State, int, int] | None:
        return None

    def standing(self, used: int, oldest: int, blocking: int) -> tuple[int, int, int]:
        return used, oldest + self.span, blocking + self.span

    def count(self, state: State, clock: int, used: int) -> State:
        if not used:
            return _STAMP.pack(clock)
        if type(state) is array:
            gone = len(state) - used
            # Moving the rest of a long array costs more than keeping an eighth of it for a while.
            if gone > used >> 3:
                del state[:gone]
            state.append(clock)
            return state
        kept = state[-_STAMP.size * used :] + _STAMP.pack(clock)
        return kept if len(kept) <= _PACKED_STAMPS else array("q", kept)

    def over(self, state: State, now: int) -> bool:
        last: int = state[-1] if type(state) is array else _STAMP.unpack_from(state, len(state) - _STAMP.size)[0]
        return last + self.span <= now


class CounterLimit(Limit):
    """Two counters: ``previous * (1 - elapsed / window) + current + 1 <= limit``, in windows that begin at multiples
    of ``span``. Its state is the clock, the previous count and the current one, packed into one integer."""

    algorithm: ClassVar[str] = "counter"
    code: ClassVar[int] = 2

    def look(self, state: State | None, now: int) -> tuple[State, int, int, int, int]:
        span = self.span
        if state is None:
            return now << 2 * _COUNT_BITS, now, 0, now - now % span + span, 0
        last = state >> 2 * _COUNT_BITS
        clock = now if now > last else last
        turns = clock // span - last // span
        current = state & _COUNT_MASK
        previous = (state >> _COUNT_BITS) & _COUNT_MASK
        if turns:
            previous, current = current if turns == 1 else 0, 0
        rolled = (clock << _COUNT_BITS | previous) << _COUNT_BITS | current
        return (rolled, clock, *self.standing(clock, current, previous))

    def take(self, state: State, now: int) -> tuple[State, int, int] | None:
        span = self.span
        last: int = state >> 2 * _COUNT_BITS
        ends = last - last % span + span
        if not last <= now < ends:
            return None
        counts: int = state & _COUNTS_MASK
        if counts < _COUNT_MASK:
            used = counts
        else:
            used = (counts & _COUNT_MASK) - (counts >> _COUNT_BITS) * (now - ends) // span
        remaining = self.limit - used - 1
        if remaining < 0:
            return None
        return now << 2 * _COUNT_BITS | counts + 1, remaining, ends

    def standing(self, clock: int, current: int, previous: int) -> tuple[int, int, int]:
        span, limit = self.span, self.limit
        elapsed = clock % span
        begun = clock - elapsed
        used = current - previous * (elapsed - span) // span
        if used < limit:
            return used, begun + span, 0
        spare = limit - 1 - current
        if spare >= 0:
            return used, begun + span, begun + span - spare * span // previous
        return used, begun + span, begun + 2 * span - (limit - 1) * span // current

    def count(self, state: State, clock: int, used: int) -> State:
        return state + 1

    def over(self, state: State, now: int) -> bool:
        last = state >> 2 * _COUNT_BITS
        return bool(last - last % self.span + 2 * self.span <= now)


KINDS: dict[str, type[Limit]] = {"log": LogLimit, "counter": CounterLimit}


def compile_limit(config: RateLimit) -> Limit:
    """Raises ``ValueError`` for a pattern, number or window out of range, and for an unknown algorithm."""
    if not 1 <= config.limit <= LARGEST_LIMIT:
        raise ValueError(f"the limit {config.limit} is not between 1 and {LARGEST_LIMIT}")
    if not 0 < config.window <= LONGEST_WINDOW:
        raise ValueError(f"the window {config.window} s is not between 0 and {LONGEST_WINDOW:.0f} s")
    algorithm = config.algorithm
    if algorithm == "auto":
        algorithm = "log" if config.limit <= LOG_UP_TO else "counter"
    if algorithm not in KINDS:
        raise ValueError(f"the algorithm {algorithm!r} is none of {', '.join(KINDS)}")
    return KINDS[algorithm](config)


class Decision:
    """The answer for one exchange, in the words of its tightest limit: the one with the least remaining, or, where it
    is refused, with the longest wait. ``reset`` is in Unix seconds, ``retry_after`` in seconds, 0 where allowed."""

    def __init__(self, allowed: bool, limit: Limit, remaining: int, reset: int, retry_after: int) -> None:
        self.allowed = allowed
        self.limit = limit
        self.remaining = remaining
        self.reset = reset
        self.retry_after = retry_after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return "Decision(allowed={}, limit={}, remaining={}, reset={}, retry_after={})".format(*self._parts())

    def _parts(self) -> tuple[bool, Limit, int, int, int]:
        return self.allowed, self.limit, self.remaining, self.reset, self.retry_after

    def headers(self) -> list[Header]:
        """``X-RateLimit-*``, and ``Retry-After`` where refused (RFC 6585 §4)."""
        pairs = [
            self.limit.header,
            (b"x-ratelimit-remaining", str(self.remaining).encode()),
            self.limit.reset_header(self.reset),
        ]
        if not self.allowed:
            pairs.append((b"retry-after", b"%d" % self.retry_after))
        return pairs


Check = tuple[Limit, bytes]
Checks = list[Check]
"""One or more, each limit once."""

Standing = tuple[Limit, int, int, int]
"""A limit, how many are used before this request, when the oldest of them leaves, when a request would pass."""


def decide(standings: Sequence[Standing], now: int, counted: int = 1) -> Decision:
    """One answer out of all limits of an exchange. ``counted`` is 0 for a look that counts nothing.

    ``Retry-After`` is rounded up, so that a request passes after it if nothing else was sent; ``reset`` likewise.
    """
    tightest, least, reset_at = None, 0, 0
    refusing, longest, refused_until = None, 0, 0
    for limit, used, resets, passes in standings:
        remaining = limit.limit - used
        if remaining <= 0:
            if refusing is None or passes > longest:
                refusing, longest, refused_until = limit, passes, resets
        elif tightest is None or remaining < least or (remaining == least and resets > reset_at):
            tightest, least, reset_at = limit, remaining, resets
    if refusing is not None:
        return Decision(False, refusing, 0, -(-refused_until // SECOND), max(1, -((now - longest) // SECOND)))
    assert tightest is not None, "an exchange without limits is not checked"
    return Decision(True, tightest, least - counted, -(-reset_at // SECOND), 0)


def scope_key(scope: str, provider: str | None, principal: str | None, address: str) -> bytes:
    """What a limit of ``scope`` counts a caller by: at most 40 bytes, and never the same for two of them.

    ``user`` is the principal, ``provider`` being the verifier that vouches for the id; without one it is the address.
    IPv6 counts by /64, what one customer has at will; an IPv4 address mapped into it is the IPv4 address. What is no
    address, such as the peer of a unix socket, counts as it is written.
    """
    if scope == "endpoint":
        return b""
    if principal is not None and scope == "user":
        return _user_key(provider or "", principal)
    return _address_key(address)


@lru_cache(4096)
def _user_key(provider: str, principal: str) -> bytes:
    issuer = provider.encode("utf-8", "surrogatepass")
    return _bounded(b"u", b"%d:%b%b" % (len(issuer), issuer, principal.encode("utf-8", "surrogatepass")))


@lru_cache(4096)
def _address_key(address: str) -> bytes:
    try:
        if ":" not in address:
            return b"4" + inet_pton(AF_INET, address)
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return _bounded(b"a", address.encode("utf-8", "surrogatepass"))
    if packed.startswith(_MAPPED):
        return b"4" + packed[12:]
    return b"6" + packed[:8]


_MAPPED = bytes(10) + b"\xff\xff"


def _bounded(kind: bytes, text: bytes) -> bytes:
    return kind + text if len(text) < 32 else kind.upper() + blake2b(text, digest_size=24).digest()


class Selection:
    """The limits of one route: ``always`` apply to every path that it matches, ``sometimes`` must be tested."""

    def __init__(self, always: tuple[Limit, ...] = (), sometimes: tuple[Limit, ...] = ()) -> None:
        self.always = always
        self.sometimes = sometimes

    def __bool__(self) -> bool:
        return bool(self.always or self.sometimes)

    def of(self, path: bytes) -> tuple[Limit, ...]:
        """Those that apply to a path as it was sent."""
        if not self.sometimes:
            return self.always
        return self.always + tuple([limit for limit in self.sometimes if limit.pattern.matches(path)])

    def of_addresses(self) -> Selection:
        """Those to which a 401 is charged: check it with these, and where they refuse it becomes a 429."""
        return Selection(
            tuple(limit for limit in self.always if limit.scope == "ip"),
            tuple(limit for limit in self.sometimes if limit.scope == "ip"),
        )


def select(limits: Iterable[Limit], route: Pattern) -> Selection:
    """Which of ``limits`` can apply to what ``route`` matches."""
    found: dict[str, list[Limit]] = {"always": [], "sometimes": [], "never": []}
    for limit in limits:
        found[overlaps(limit.pattern, route)].append(limit)
    return Selection(tuple(found["always"]), tuple(found["sometimes"]))


class ExactWindows:
    """Exact windows in this process for the token endpoint: ``policy.oauth.Allow`` over a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._limits: dict[tuple[int, float], Limit] = {}

    def __call__(self, key: bytes, limit: int, window: float, now: float) -> float | None:
        """Count one for ``key``, or the seconds to wait where that would be more than ``limit`` in ``window``."""
        exact = self._limits.get((limit, window))
        if exact is None:
            exact = compile_limit(RateLimit("/oauth/token", limit, window, "endpoint", "log"))
            self._limits[limit, window] = exact
        decision = self._store.check([(exact, key)], now)
        return None if decision.allowed else float(decision.retry_after)


class MemoryStore:
    """Counts in this process, for at most ``max_keys`` keys: then the longest unused leave first.

    A large store is spread over tables, so that none ever takes long to grow or to sweep; the keys that leave are then
    the longest unused of the newcomer's table. Keys whose window has passed are swept, a table at a time.
    """

    kind: ClassVar[str] = "memory"
    up: ClassVar[bool] = True

    def __init__(self, clock: IReactorTime, max_keys: int = MAX_KEYS) -> None:
        self._seconds: Callable[[], float] = clock.seconds
        self._max_keys = max_keys
        self._size = 0
        # Of what is kept: the limit by its id, and how many keys it has.
        self._limits: dict[bytes, Limit] = {}
        self._keys: dict[bytes, int] = {}
        # Each in the order of last use.
        self._tables: list[dict[bytes, State]] = [{} for _ in range(1 if max_keys <= _ONE_TABLE_UP_TO else _TABLES)]
        self._next_swept = 0
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = clock

    def __len__(self) -> int:
        return self._size

    def keys_of(self, limit: Limit) -> int:
        """How many callers it has counted of late: some may be over, and not yet swept."""
        return self._keys.get(limit.id, 0)

    def start(self) -> Deferred[None]:
        self._sweeping.start(SWEEP_INTERVAL, now=False)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        if self._sweeping.running:
            self._sweeping.stop()
        return succeed(None)

    def check(self, checks: Checks, now: float | None = None) -> Decision:
        """Test all, then count all, unless one refuses. ``now`` is in Unix seconds."""
        moment = int((self._seconds() if now is None else now) * SECOND + 0.5)
        tables = self._tables
        if len(checks) == 1:
            limit, key = checks[0]
            name = limit.id + key
            table = tables[hash(name) % len(tables)]
            state = table.pop(name, None)
            if state is not None:
                taken = limit.take(state, moment)
                if taken is not None:
                    table[name], remaining, resets = taken
                    return Decision(True, limit, remaining, -(-resets // SECOND), 0)
                table[name] = state
        looks = []
        standings = []
        allowed = True
        for limit, key in checks:
            name = limit.id + key
            table = tables[hash(name) % len(tables)]
            # Taken out and put back: a dict keeps the order of insertion, which thereby is the order of use.
            state = table.pop(name, None)
            rolled, clock, used, resets, passes = limit.look(state, moment)
            if used >= limit.limit:
                allowed = False
            looks.append((limit, table, name, state, rolled, clock, used))
            standings.append((limit, used, resets, passes))
        for limit, table, name, state, rolled, clock, used in looks:
            if allowed:
                table[name] = limit.count(rolled, clock, used)
                if state is None:
                    self._added(limit, table)
            elif state is not None:
                table[name] = state
        return decide(standings, moment)

    def peek(self, checks: Checks, now: float | None = None) -> Decision:
        """What ``check`` would say, and how many remain now. Counts nothing and is no use of the keys."""
        moment = int((self._seconds() if now is None else now) * SECOND + 0.5)
        standings = []
        for limit, key in checks:
            name = limit.id + key
            state = self._tables[hash(name) % len(self._tables)].get(name)
            standings.append((limit, *limit.look(state, moment)[2:]))
        return decide(standings, moment, 0)

    def sweep(self, now: float | None = None) -> None:
        """Drop what is over from the next table, and give back the room it took."""
        moment = int((self._seconds() if now is None else now) * SECOND + 0.5)
        place = self._next_swept
        self._next_swept = (place + 1) % len(self._tables)
        table = self._tables[place]
        limits = self._limits
        dead = [name for name, state in table.items() if limits[name[:8]].over(state, moment)]
        self._drop(dead, table)
        if len(dead) > len(table):
            self._tables[place] = dict(table)

    def _added(self, limit: Limit, table: dict[bytes, State]) -> None:
        self._limits[limit.id] = limit
        self._keys[limit.id] = self._keys.get(limit.id, 0) + 1
        self._size += 1
        if self._size > self._max_keys:
            # Several at once from a large table: finding the first steps over the places of those that have left.
            self._drop(list(islice(table, 1 + len(table) // 256)), table)

    def _drop(self, names: list[bytes], table: dict[bytes, State]) -> None:
        for name in names:
            del table[name]
        self._size -= len(names)
        for identity, gone in Counter(name[:8] for name in names).items():
            self._keys[identity] -= gone
            if not self._keys[identity]:
                del self._keys[identity], self._limits[identity]
