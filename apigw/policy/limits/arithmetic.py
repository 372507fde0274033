# Compiled: see docs/decisions/compiled.md
"""The arithmetic of rate limits: the state of a key, whether a request passes, and the numbers for the client.

Time is in whole microseconds of one clock, in integers, so that the store in memory and the one in Redis decide alike,
to the microsecond. A window is half open: a request counted at ``t`` is outside at ``t + window``. For one key, time
never goes backwards.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from apigw.policy.limits.model import RateLimit
from apigw.policy.limits.quota import Quota, identify
from apigw.wire.headers import Header

SECOND: Final = 1_000_000
"""Microseconds."""

LARGEST_LIMIT: Final = 2**31 - 1
LONGEST_WINDOW: Final = 2**43 / SECOND
"""Seconds, some 101 days. Within these two bounds, the doubles of a Lua script calculate exactly."""

LOG_UP_TO: Final = 1_000
"""``algorithm: auto`` uses ``log`` up to this limit, and ``counter`` above."""

HEADERS: Final = frozenset({b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"})
"""What a decision says of itself; a service's own limits would contradict it."""

State = Any
"""The state of a key. ``log``: its timestamps in order, packed, or an array of many. ``counter``: an integer."""

_REMAINING: Final = b"x-ratelimit-remaining"
_FEW: Final[tuple[Header, ...]] = tuple([(_REMAINING, b"%d" % number) for number in range(1_000)])
_LAST_DIGITS: Final[tuple[bytes, ...]] = tuple([b"%03d" % number for number in range(1_000)])
_STAMP: Final = Struct("=q")
_PACKED: Final = Struct("<Bqq")
_PACKED_STAMPS: Final = 64 * _STAMP.size
_COUNT_BITS: Final = 31
_COUNT_MASK: Final = 0x7FFFFFFF
_COUNTS_MASK: Final = 0x3FFFFFFFFFFFFFFF


@mypyc_attr(acyclic=True)
class Standing:
    """The state of a key before a request, in numbers. Times are microseconds of the counting clock.

    ``clock`` is the key's own time; ``used`` is how many requests count, ``resets`` when the oldest of them leaves the
    window, and ``passes`` when a request would pass, or 0 if one passes now. ``counts`` are both counts of a counter.
    """

    def __init__(self, limit: Limit, clock: int, used: int, resets: int, passes: int, counts: int = 0) -> None:
        self.limit = limit
        self.clock = clock
        self.used = used
        self.resets = resets
        self.passes = passes
        self.counts = counts


class Limit(Quota):
    """A compiled rate limit. ``span`` is its window in microseconds.

    ``id`` is equal for limits that count the same requests in the same way, so that counts survive a reload, even one
    that changes ``limit``. ``header`` is ``X-RateLimit-Limit``; ``packed`` is for the script in Redis.
    """

    kind: ClassVar[str] = "rate"
    algorithm: ClassVar[str]
    code: ClassVar[int]

    def __init__(self, config: RateLimit, limit: int, window: float) -> None:
        super().__init__(config)
        self.limit = limit
        self.window = window
        self.span = max(1, round(window * SECOND))
        self.id = identify(self.counted_as, self.scope, str(self.span), self.algorithm)
        self.header: Header = (b"x-ratelimit-limit", b"%d" % self.limit)
        self.packed = _PACKED.pack(self.code, self.limit, self.span)

        self.reset = 0
        self.reset_header: Header = (b"x-ratelimit-reset", b"0")
        """``X-RateLimit-Reset`` where it is ``reset``. The last one is cached, because many answers have the same."""

        self._thousands = 0
        self._leading = b""

    def remaining_header(self, remaining: int) -> Header:
        """``X-RateLimit-Remaining``. Most of its digits are those of the answer before."""
        thousands = remaining // 1_000
        if not thousands:
            return _FEW[remaining]
        if thousands != self._thousands:
            self._thousands = thousands
            self._leading = b"%d" % thousands
        return (_REMAINING, self._leading + _LAST_DIGITS[remaining - thousands * 1_000])

    def resets_at(self, reset: int) -> Header:
        self.reset = reset
        self.reset_header = (b"x-ratelimit-reset", b"%d" % reset)
        return self.reset_header

    def __repr__(self) -> str:
        return f"<{self.limit} per {self.window:g} s and {self.scope} of {self.endpoint}, {self.algorithm}>"

    def look(self, state: State | None, now: int) -> Standing:
        """The standing at ``now`` of a key with ``state``, which is ``None`` for a new key."""
        raise NotImplementedError

    def count(self, state: State | None, standing: Standing) -> State:
        """The state after one more request, from the result of ``look``. The old one must not be used any more."""
        raise NotImplementedError

    def over(self, state: State, now: int) -> bool:
        """Whether ``state`` has expired."""
        raise NotImplementedError

    def told(self, first: int, second: int, third: int) -> Standing:
        """The standing from the three numbers that the script in Redis returns for a key."""
        raise NotImplementedError


class LogLimit(Limit):
    """Sliding log, exact: one timestamp for each request. No window of ``span`` has more than ``limit``."""

    algorithm: ClassVar[str] = "log"
    code: ClassVar[int] = 1

    def look(self, state: State | None, now: int) -> Standing:
        span = self.span
        if state is None:
            return Standing(self, now, 0, now + span, 0)
        stamps = state if type(state) is array else memoryview(state).cast("q")
        last: int = stamps[-1]
        clock = now if now > last else last
        gone = clock - span
        oldest: int = stamps[0]
        used = len(stamps)
        if oldest <= gone:
            first: int = bisect_right(stamps, gone)
            used -= first
            oldest = stamps[first] if used else clock
        passes: int = stamps[-self.limit] + span if used >= self.limit else 0
        return Standing(self, clock, used, oldest + span, passes)

    def count(self, state: State | None, standing: Standing) -> State:
        clock, used = standing.clock, standing.used
        if state is None or not used:
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

    def told(self, used: int, oldest: int, blocking: int) -> Standing:
        return Standing(self, 0, used, oldest + self.span, blocking + self.span)


class CounterLimit(Limit):
    """Sliding window counter: ``previous * (1 - elapsed / window) + current + 1 <= limit``, in windows that
    begin at multiples of ``span``.

    Its state is the clock, the previous count and the current one, packed into one integer.
    """

    algorithm: ClassVar[str] = "counter"
    code: ClassVar[int] = 2

    def look(self, state: State | None, now: int) -> Standing:
        if state is None:
            return weigh(self, now, 0, now)
        last: int = state >> 2 * _COUNT_BITS
        counts: int = state & _COUNTS_MASK
        return weigh(self, last, counts, now)

    def count(self, state: State | None, standing: Standing) -> State:
        return standing.clock << 2 * _COUNT_BITS | standing.counts + 1

    def over(self, state: State, now: int) -> bool:
        last: int = state >> 2 * _COUNT_BITS
        return last - last % self.span + 2 * self.span <= now

    def told(self, clock: int, current: int, previous: int) -> Standing:
        return weigh(self, clock, both(previous, current), clock)


def both(previous: int, current: int) -> int:
    """Both counts of a counter, packed."""
    return previous << _COUNT_BITS | current


def weigh(limit: Limit, last: int, counts: int, now: int) -> Standing:
    """The standing at ``now`` of a counter whose clock is ``last``, and whose counts are ``counts``."""
    span, number = limit.span, limit.limit
    clock = now if now > last else last
    ends = last - last % span + span
    if clock >= ends:
        turns = (clock - ends) // span + 1
        ends += turns * span
        # The current count becomes the previous one, or is forgotten like it.
        counts = (counts & _COUNT_MASK) << _COUNT_BITS if turns == 1 else 0
    used = counts
    if counts > _COUNT_MASK:
        current, previous = counts & _COUNT_MASK, counts >> _COUNT_BITS
        used = current - previous * (clock - ends) // span
    if used < number:
        return Standing(limit, clock, used, ends, 0, counts)
    current, previous = counts & _COUNT_MASK, counts >> _COUNT_BITS
    spare = number - 1 - current
    if spare >= 0:
        passes = ends - spare * span // previous
    else:
        passes = ends + span - (number - 1) * span // current
    return Standing(limit, clock, used, ends, passes, counts)


KINDS: dict[str, type[Limit]] = {"log": LogLimit, "counter": CounterLimit}


def compile_limit(config: RateLimit) -> Limit:
    """Compile a limit. Raises ``ValueError`` for a wrong pattern, limit, window or algorithm."""
    limit, window = config.limit, config.window
    if limit is None or not 1 <= limit <= LARGEST_LIMIT:
        raise ValueError(f"the limit {limit} is not between 1 and {LARGEST_LIMIT}")
    if window is None or not 0 < window <= LONGEST_WINDOW:
        raise ValueError(f"the window {window} s is not between 0 and {LONGEST_WINDOW:.0f} s")
    algorithm = config.algorithm
    if algorithm == "auto":
        algorithm = "log" if limit <= LOG_UP_TO else "counter"
    if algorithm not in KINDS:
        raise ValueError(f"the algorithm {algorithm!r} is none of {', '.join(KINDS)}")
    return KINDS[algorithm](config, limit, window)


Check = tuple[Limit, bytes]
"""A limit, and the key that it counts by."""
Checks = list[Check]
"""All checks of one exchange: one or more, each limit once. First all are tested, then all count, so that a
request that one limit refuses counts in none."""


@mypyc_attr(acyclic=True)
class Decision:
    """The decision for one exchange, with the numbers of its tightest limit: that with the fewest remaining requests,
    or if it is refused, that with the longest wait.

    ``reset`` is in Unix seconds, ``retry_after`` in seconds, 0 if allowed.
    """

    def __init__(self, allowed: bool, limit: Limit, remaining: int, reset: int, retry_after: int) -> None:
        self.allowed = allowed
        self.limit = limit
        self.remaining = remaining
        self.reset = reset
        self.retry_after = retry_after
        headers: list[Header] = [
            limit.header,
            limit.remaining_header(remaining),
            limit.reset_header if limit.reset == reset else limit.resets_at(reset),
        ]
        if not allowed:
            headers.append((b"retry-after", b"%d" % retry_after))
        self.headers = headers
        """``X-RateLimit-*``, and ``Retry-After`` where refused (RFC 6585 §4)."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return "Decision(allowed={}, limit={}, remaining={}, reset={}, retry_after={})".format(*self._parts())

    def _parts(self) -> tuple[bool, Limit, int, int, int]:
        return self.allowed, self.limit, self.remaining, self.reset, self.retry_after


def allow(standing: Standing, counted: int, ahead: int) -> Decision:
    """The decision for a single limit that lets the request pass. See ``decide``."""
    limit = standing.limit
    return Decision(True, limit, limit.limit - standing.used - counted, -(-(standing.resets + ahead) // SECOND), 0)


def decide(standings: Sequence[Standing], now: int, counted: int, ahead: int) -> Decision:
    """The decision from the standings of all limits of an exchange before it.

    ``now`` and the standings are in microseconds of one clock, and Unix time is ``ahead`` of it: 0 for the clock of
    Redis. ``counted`` is 1, or 0 if nothing was counted. ``Retry-After`` is rounded up, so that a
    request passes after it if nothing else was sent; ``reset`` likewise.
    """
    tightest: Standing | None = None
    refusing: Standing | None = None
    for standing in standings:
        if standing.used >= standing.limit.limit:
            if refusing is None or standing.passes > refusing.passes:
                refusing = standing
        elif tightest is None or _is_tighter(standing, tightest):
            tightest = standing
    if refusing is not None:
        wait = -((now - refusing.passes) // SECOND)  # at least one, as it passes later than now
        return Decision(False, refusing.limit, 0, unix_seconds(refusing.resets + ahead), wait)
    assert tightest is not None, "an exchange without limits is not checked"
    return allow(tightest, counted, ahead)


def _is_tighter(standing: Standing, other: Standing) -> bool:
    left, least = standing.limit.limit - standing.used, other.limit.limit - other.used
    return left < least or (left == least and standing.resets > other.resets)


def unix_seconds(microseconds: int) -> int:
    """Microseconds as seconds, rounded up."""
    return -(-microseconds // SECOND)
