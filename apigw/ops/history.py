"""What was counted lately, for those who look at one gateway: minutes by the second, the last minute by series.

Once a second the counters are read and compared with what they were. Memory is bounded: ``SECONDS`` samples, and up to
seven slots for each series that has counted something.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from itertools import accumulate
from operator import add, sub
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from apigw.ops.metrics import BUCKETS

SECONDS = 300
"""How many samples are kept, one a second."""
SLOT = 10
SLOTS = 6
"""A series is kept in slots of ten seconds; six whole ones and the one that has begun make "the last minute"."""


class Counted(Protocol):
    """One method of one route, as it counts up: durations by bucket, and answers by status."""

    @property
    def buckets(self) -> list[int]: ...
    @property
    def statuses(self) -> dict[int, int]: ...


class Series(Protocol):
    """One route."""

    @property
    def methods(self) -> Mapping[str, Counted]: ...


class Tally:
    """How much was counted in some stretch of time; ``failed`` are 5xx, ``limited`` 429."""

    __slots__ = ("buckets", "failed", "limited", "requests")

    def __init__(self) -> None:
        self.requests = self.failed = self.limited = 0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def add(self, other: Tally) -> None:
        self.requests += other.requests
        self.failed += other.failed
        self.limited += other.limited
        self.buckets[:] = map(add, self.buckets, other.buckets)

    def quantile(self, share: float) -> float | None:
        """Seconds that ``share`` of the durations do not exceed, as ``histogram_quantile`` of Prometheus finds it: by
        a straight line within the bucket. None without durations; at most the highest bound."""
        sums = list(accumulate(self.buckets))
        if not sums[-1]:
            return None
        rank = share * sums[-1]
        bucket = bisect_left(sums, rank)
        if bucket >= len(BUCKETS):
            return BUCKETS[-1]
        below = sums[bucket - 1] if bucket else 0
        low = BUCKETS[bucket - 1] if bucket else 0.0
        return low + (BUCKETS[bucket] - low) * (rank - below) / self.buckets[bucket]


@frozen
class Second:
    """``requests`` and ``failed`` are per second, the percentiles seconds."""

    at: float
    requests: float
    failed: float
    p50: float | None
    p95: float | None
    p99: float | None


class _Known:
    """One method of one route: what it had counted when it was read last, and the slots since."""

    __slots__ = ("buckets", "counted", "failed", "limited", "requests", "slots")

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.requests = self.failed = self.limited = 0
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.slots: deque[tuple[int, Tally]] = deque(maxlen=SLOTS + 1)

    def since(self) -> Tally | None:
        """What is new. None where nothing is."""
        statuses = self.counted.statuses
        requests = sum(statuses.values())
        if requests == self.requests:
            return None
        new = Tally()
        new.requests, self.requests = requests - self.requests, requests
        failed = sum(count for status, count in statuses.items() if status >= 500)
        new.failed, self.failed = failed - self.failed, failed
        limited = statuses.get(429, 0)
        new.limited, self.limited = limited - self.limited, limited
        buckets = self.counted.buckets.copy()
        new.buckets[:] = map(sub, buckets, self.buckets)
        self.buckets = buckets
        return new


class History:
    """Reads ``routes()`` each second of ``clock``, from ``start`` to ``stop``."""

    def __init__(self, clock: IReactorTime, routes: Callable[[], Mapping[str, Series]]) -> None:
        self._clock = clock
        self._routes = routes
        self._known: dict[str, dict[str, _Known]] = {}
        self._call: IDelayedCall | None = None
        self._read_at = self._began_at = clock.seconds()
        self.seconds: deque[Second] = deque(maxlen=SECONDS)

    def start(self) -> None:
        self._read_at = self._began_at = self._clock.seconds()
        self._call = self._clock.callLater(1.0, self._tick)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def span(self) -> float:
        """How many seconds "the last minute" has had so far: what a tally of it is to be divided by."""
        whole = self._clock.seconds() % SLOT + SLOT * SLOTS
        return max(1.0, min(whole, self._clock.seconds() - self._began_at))

    def lately(self, path: str) -> dict[str, Tally]:
        """The last minute of one route by method; methods without a request are left out."""
        oldest = self._slot() - SLOTS
        found = {}
        for method, known in self._known.get(path, {}).items():
            if known.slots and known.slots[-1][0] >= oldest:
                found[method] = total = Tally()
                for slot, tally in known.slots:
                    if slot >= oldest:
                        total.add(tally)
        return found

    def _slot(self) -> int:
        return int(self._clock.seconds() // SLOT)

    def _tick(self) -> None:
        self._call = self._clock.callLater(1.0, self._tick)
        now = self._clock.seconds()
        slot = self._slot()
        total = Tally()
        before, self._known = self._known, {}
        for path, route in self._routes().items():
            was = before.get(path, {})
            self._known[path] = {}
            for method, counted in route.methods.items():
                known = was.get(method)
                if known is None or known.counted is not counted:
                    known = _Known(counted)
                self._known[path][method] = known
                new = known.since()
                if new is not None:
                    total.add(new)
                    if not known.slots or known.slots[-1][0] != slot:
                        known.slots.append((slot, Tally()))
                    known.slots[-1][1].add(new)
        elapsed = max(now - self._read_at, 1e-3)
        self._read_at = now
        percentiles = [total.quantile(share) for share in (0.5, 0.95, 0.99)]
        self.seconds.append(Second(now, total.requests / elapsed, total.failed / elapsed, *percentiles))
