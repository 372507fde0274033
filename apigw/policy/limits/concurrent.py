# Compiled: see docs/decisions/compiled.md
"""Concurrency limits: an exchange takes a place before it is forwarded, and frees it when it ends."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from apigw.contract.exchange import AtEnd, Exchange
from apigw.policy.limits.model import RateLimit
from apigw.policy.limits.quota import Quota, identify

MOST_PLACES: Final = 1_000_000
LEASE: Final = 30.0
"""Seconds of the lease of a place in Redis. Its gateway renews it; after a crash, the place is free when it ends."""
RENEWAL: Final = 10.0
"""Seconds between two renewals of a lease: two of them may fail."""

_PACKED: Final = Struct("<Bqq")
_CODE: Final = 3

WANTED, HELD, OVER = 0, 1, 2
"""The states of a claim."""


class ConcurrentLimit(Quota):
    """At most ``most`` concurrent exchanges of one caller. ``id`` does not depend on ``most``; ``packed`` is for the
    script in Redis."""

    kind: ClassVar[str] = "concurrent"

    def __init__(self, config: RateLimit, most: int) -> None:
        super().__init__(config)
        self.most = most
        self.id = identify(self.counted_as, self.scope, self.kind)
        self.packed = _PACKED.pack(_CODE, most, int(LEASE * 1_000_000))

    def __repr__(self) -> str:
        return f"<{self.most} at a time per {self.scope} of {self.endpoint}>"


Want = tuple[ConcurrentLimit, bytes]
"""A limit, and the key of the caller that needs one of its places."""


class Claim(AtEnd):
    """The places of one exchange, one for each limit. It gets all of them, until it ends, or none."""

    def __init__(self, wanted: list[Want], store: ClaimStore) -> None:
        self.wanted = wanted
        self.state: int = WANTED
        self.full: ConcurrentLimit | None = None
        """The limit that has no place left, as the store reports it."""
        self.name = b""
        """The id of the lease in Redis."""
        self.by_share = False
        """Whether its places are of this worker's own share, because those of all workers were not to be had."""
        self._store = store

    def run(self, exchange: Exchange) -> None:
        self.release()

    def release(self) -> None:
        """Free the places at the end of the exchange. The store frees what it grants later."""
        before, self.state = self.state, OVER
        if before == HELD:
            self._store.free(self)


class ClaimStore:
    """A store that grants claims."""

    def free(self, claim: Claim) -> None:
        """Free the places of a granted claim."""
        raise NotImplementedError


class Places:
    """The places in use by this process: exact, and bounded by the exchanges in flight."""

    def __init__(self) -> None:
        self._taken: dict[bytes, dict[bytes, int]] = {}

    def full(self, wanted: list[Want]) -> ConcurrentLimit | None:
        """The first limit without a place for its caller."""
        for limit, key in wanted:
            if self.taken(limit, key) >= limit.most:
                return limit
        return None

    def taken(self, limit: ConcurrentLimit, key: bytes) -> int:
        """Those of one caller."""
        taken = self._taken.get(limit.id)
        return 0 if taken is None else taken.get(key, 0)

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
        """The number of callers that hold places of a limit, and the number of these places."""
        taken = self._taken.get(limit.id, {})
        return len(taken), sum(taken.values())


def compile_concurrent(config: RateLimit) -> ConcurrentLimit:
    """Raises ``ValueError`` for a pattern or number out of range."""
    most = config.concurrent
    if most is None or not 1 <= most <= MOST_PLACES:
        raise ValueError(f"{most} at a time is not between 1 and {MOST_PLACES}")
    return ConcurrentLimit(config, most)
