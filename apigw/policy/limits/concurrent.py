# Compiled: see docs/decisions/compiled.md
"""Limits of what runs at a time: an exchange takes a place before it is forwarded, and gives it back when it ends."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from apigw.contract.exchange import AtEnd, Exchange
from apigw.policy.limits.model import RateLimit
from apigw.policy.limits.quota import Quota, identify

MOST_PLACES: Final = 1_000_000
LEASE = 30.0
"""Seconds for which a place in Redis is taken. A gateway that lives renews it; that of one which died is free then."""
RENEWAL = 10.0
"""Seconds between two renewals: two of them may fail."""

_PACKED = Struct("<Bqq")
_CODE = 3

WANTED, HELD, OVER = 0, 1, 2
"""The states of a claim."""


class ConcurrentLimit(Quota):
    """At most ``most`` exchanges of one caller at a time. ``id`` is the same whatever the number is; ``packed`` is for
    the script in Redis."""

    kind: ClassVar[str] = "concurrent"

    def __init__(self, config: RateLimit, most: int) -> None:
        super().__init__(config)
        self.most = most
        self.id = identify(self.endpoint, self.scope, self.kind)
        self.packed = _PACKED.pack(_CODE, most, int(LEASE * 1_000_000))

    def __repr__(self) -> str:
        return f"<{self.most} at a time per {self.scope} of {self.endpoint}>"


Want = tuple[ConcurrentLimit, bytes]
"""A limit, and the key of the caller who wants one of its places."""


class Claim(AtEnd):
    """The places that one exchange wants, one of each limit, and holds until it ends: all of them, or none."""

    def __init__(self, wanted: list[Want], store: ClaimStore) -> None:
        self.wanted = wanted
        self.state: int = WANTED
        self.full: ConcurrentLimit | None = None
        """Which limit has no place left, once the store has said."""
        self.name = b""
        """Of the lease in Redis."""
        self._store = store

    def run(self, exchange: Exchange) -> None:
        self.release()

    def release(self) -> None:
        """The exchange is over. What is granted after this is given back by the store."""
        before, self.state = self.state, OVER
        if before == HELD:
            self._store.free(self)


class ClaimStore:
    """What grants claims."""

    def free(self, claim: Claim) -> None:
        """Take back the places of a claim that held them."""
        raise NotImplementedError


class Places:
    """The places that are taken through this process. Exact, and as many as exchanges in flight have."""

    def __init__(self) -> None:
        self._taken: dict[bytes, dict[bytes, int]] = {}

    def full(self, wanted: list[Want]) -> ConcurrentLimit | None:
        """The first of the limits that has no place left for its caller."""
        for limit, key in wanted:
            taken = self._taken.get(limit.id)
            if taken is not None and taken.get(key, 0) >= limit.most:
                return limit
        return None

    def take(self, wanted: list[Want]) -> None:
        for limit, key in wanted:
            taken = self._taken.setdefault(limit.id, {})
            taken[key] = taken.get(key, 0) + 1

    def free(self, wanted: list[Want]) -> None:
        for limit, key in wanted:
            taken = self._taken[limit.id]
            left = taken[key] - 1
            if left:
                taken[key] = left
            else:
                del taken[key]
                if not taken:
                    del self._taken[limit.id]

    def of(self, limit: ConcurrentLimit) -> tuple[int, int]:
        """How many callers hold places of a limit, and how many places."""
        taken = self._taken.get(limit.id, {})
        return len(taken), sum(taken.values())


def compile_concurrent(config: RateLimit) -> ConcurrentLimit:
    """Raises ``ValueError`` for a pattern or number out of range."""
    most = config.concurrent
    if most is None or not 1 <= most <= MOST_PLACES:
        raise ValueError(f"{most} at a time is not between 1 and {MOST_PLACES}")
    return ConcurrentLimit(config, most)
