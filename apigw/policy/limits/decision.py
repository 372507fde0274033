# Compiled: see docs/decisions/compiled.md
"""What the limits of an exchange come to: one decision, and the fields by which the client is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apigw import errors
from apigw.contract.exchange import DROPPED, Exchange
from apigw.policy.limits.arithmetic import SECOND, Limit, Standing
from apigw.wire.headers import Header

HEADERS = frozenset({b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"})
"""What a decision says of itself; a service's own limits would contradict it."""
_WITHOUT_LIMITS = DROPPED | HEADERS

Check = tuple[Limit, bytes]
"""A limit, and the key that it counts by."""
Checks = list[Check]
"""All checks of one exchange: one or more, each limit once. First all are tested, then all are counted, so that a
request which one limit refuses is not counted by any."""
Violated = Callable[[Limit], object]
"""Told of each limit that refuses an exchange."""


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
        limit = self.limit
        pairs = [
            limit.header,
            (b"x-ratelimit-remaining", str(self.remaining).encode()),
            limit.reset_header if limit.reset == self.reset else limit.resets_at(self.reset),
        ]
        if not self.allowed:
            pairs.append((b"retry-after", b"%d" % self.retry_after))
        return pairs


def allow(standing: Standing, counted: int, ahead: int) -> Decision:
    """The decision where one limit alone is asked and has room. See ``decide``."""
    limit = standing.limit
    return Decision(True, limit, limit.limit - standing.used - counted, -(-(standing.resets + ahead) // SECOND), 0)


def decide(standings: Sequence[Standing], now: int, counted: int, ahead: int) -> Decision:
    """One decision out of all limits of an exchange, as they stood before it.

    ``now`` and the standings are in microseconds of one clock, and Unix time is ``ahead`` of it: 0 where that clock is
    the one of Redis. ``counted`` is 1, or 0 for a look that counts nothing. ``Retry-After`` is rounded up, so that a
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


def tell(exchange: Exchange, decision: Decision | None, violated: Violated) -> None:
    """Let the answer say how things stand, and raise ``RateLimited`` where the exchange is one too many."""
    if decision is None:
        return
    dropped = exchange.dropped
    exchange.dropped = _WITHOUT_LIMITS if dropped is DROPPED else dropped | HEADERS
    exchange.added = [*exchange.added, *decision.headers()]
    if not decision.allowed:
        violated(decision.limit)
        raise errors.RateLimited("Too many requests; see Retry-After.")


def unix_seconds(microseconds: int) -> int:
    """Rounded up."""
    return -(-microseconds // SECOND)
