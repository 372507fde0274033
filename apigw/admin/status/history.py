"""The recent history for the status page: five minutes by the second, and the last minute for each series.

Once a second the counters are read and compared with their last values. Memory is bounded:
``SECONDS`` samples, and up to eight marks for each series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from operator import add, sub
from typing import Any, NamedTuple, Protocol

import orjson
from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from apigw.ops.packing import unpack
from apigw.ops.series import BUCKETS, Key
from apigw.ops.text import let_others_run

SECONDS = 300
"""Number of samples, one a second: five minutes."""
WINDOW = 60
"""Seconds of the recent history of a series."""
ROUTES = 50
"""Number of routes in a line for another process."""
SPACING = 10
"""Seconds between two marks of a series. ``lately`` may cover so many seconds more than ``WINDOW``."""


class Counted(Protocol):
    """The counters of one method of one route: durations by bucket, and answers by status."""

    @property
    def buckets(self) -> list[int]: ...
    @property
    def statuses(self) -> dict[int, int]: ...


class Series(Protocol):
    """One route."""

    @property
    def methods(self) -> Mapping[str, Counted]: ...


class Tally:
    """The counts of a period of ``seconds``. ``failed`` are 5xx, ``refused`` 4xx without 499, ``limited`` 429."""

    __slots__ = ("buckets", "failed", "limited", "refused", "requests", "seconds")

    def __init__(
        self, requests: int, failed: int, refused: int, limited: int, buckets: list[int], seconds: float
    ) -> None:
        self.requests = requests
        self.failed = failed
        self.refused = refused
        self.limited = limited
        self.buckets = buckets
        self.seconds = seconds

    def add(self, other: Tally) -> None:
        self.requests += other.requests
        self.failed += other.failed
        self.refused += other.refused
        self.limited += other.limited
        self.buckets = list(map(add, self.buckets, other.buckets))
        self.seconds = max(self.seconds, other.seconds)

    def quantile(self, share: float) -> float | None:
        """The quantile ``share`` of the durations in seconds, computed as Prometheus' ``histogram_quantile`` does:
        linear within the bucket, and at most the highest bound. None without durations."""
        sums = list(accumulate(self.buckets))
        if sums[-1] <= 0:
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
    """The counts of one second, and durations by bucket. ``at`` is a whole number. Percentiles are seconds."""

    at: int
    requests: float
    failed: float
    refused: float
    buckets: list[int]
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, at: int, requests: float, failed: float, refused: float, buckets: list[int]) -> Second:
        tally = Tally(0, 0, 0, 0, buckets, 1.0)
        return cls(at, requests, failed, refused, buckets, *(tally.quantile(share) for share in (0.5, 0.95, 0.99)))


class _Mark(NamedTuple):
    """What a series had counted at some time."""

    at: float
    requests: int
    failed: int
    refused: int
    limited: int
    buckets: list[int]


def _failed(statuses: Mapping[int, int]) -> int:
    return sum(count for status, count in statuses.items() if status >= 500)


def _refused(statuses: Mapping[int, int]) -> int:
    """Of a client that left, 499, nothing was refused."""
    return sum(count for status, count in statuses.items() if 400 <= status < 499)


_EMPTY = [0] * (len(BUCKETS) + 1)


class _Marked:
    """One method of one route, with the marks of the last minute; where nothing was counted there is none."""

    __slots__ = ("counted", "marks")

    def __init__(self, counted: Counted, now: float) -> None:
        self.counted = counted
        self.marks = deque([_Mark(now, 0, 0, 0, 0, _EMPTY)], maxlen=WINDOW // SPACING + 2)

    def mark(self, now: float) -> None:
        statuses = self.counted.statuses
        requests = sum(statuses.values())
        if requests != self.marks[-1].requests:
            counts = requests, _failed(statuses), _refused(statuses), statuses.get(429, 0)
            self.marks.append(_Mark(now, *counts, self.counted.buckets.copy()))

    def lately(self, now: float, began: float) -> Tally | None:
        """``began``: when the gateway did. A route without requests before had none all this time."""
        begin = self.marks[0]
        for mark in self.marks:
            if mark.at > now - WINDOW:
                break
            begin = mark
        statuses = self.counted.statuses
        requests = sum(statuses.values()) - begin.requests
        if not requests:
            return None
        failed = _failed(statuses) - begin.failed
        refused = _refused(statuses) - begin.refused
        limited = statuses.get(429, 0) - begin.limited
        buckets = list(map(sub, self.counted.buckets, begin.buckets))
        seconds = min(max(now - begin.at, min(now - began, WINDOW), 1.0), WINDOW + SPACING)
        return Tally(requests, failed, refused, limited, buckets, seconds)


class History:
    """Samples ``routes()`` each second of ``clock``, between ``start`` and ``stop``.

    Measured: a sample of 2,000 series takes some 2 ms. Half of that is for marking a tenth of them.
    """

    def __init__(self, clock: IReactorTime, routes: Callable[[], Mapping[Key, Series]]) -> None:
        self._clock = clock
        self._routes = routes
        self._marked: dict[Key, dict[str, _Marked]] = {}
        self._call: IDelayedCall | None = None
        self._turn = 0
        self._total = Tally(0, 0, 0, 0, _EMPTY, 0.0)
        self._read_at = self._began = clock.seconds()
        self.seconds: deque[Second] = deque(maxlen=SECONDS)

    def start(self) -> None:
        self._read_at = self._clock.seconds()
        self._call_later()

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def lately(self, path: Key) -> dict[str, Tally]:
        """The last minute of one route, by method. Methods without requests are omitted."""
        now = self._clock.seconds()
        found = {method: marked.lately(now, self._began) for method, marked in self._marked.get(path, {}).items()}
        return {method: tally for method, tally in found.items() if tally is not None}

    def lines(self) -> Iterator[bytes]:
        """All of it, for another process: the seconds, and then the last minute of some routes at a time."""
        yield orjson.dumps([(each.at, each.requests, each.failed, each.refused, each.buckets) for each in self.seconds])
        paths = list(self._marked)
        for start in range(0, len(paths), ROUTES):
            found = ((path, self.lately(path)) for path in paths[start : start + ROUTES])
            yield orjson.dumps([(path, _plain(tallies)) for path, tallies in found if tallies])

    def _call_later(self) -> None:
        # At whole seconds, which are those of every worker: their clock is the machine's.
        now = self._clock.seconds()
        self._call = self._clock.callLater(round(now) + 1 - now, self._tick)

    def _tick(self) -> None:
        self._call_later()
        now = self._clock.seconds()
        routes = self._routes()
        self._turn = (self._turn + 1) % SPACING
        for path in islice(routes, self._turn, None, SPACING):
            for marked in self._marked.get(path, {}).values():
                marked.mark(now)
        self._follow(routes, now)
        requests = failed = refused = 0
        spreads = []
        for methods in self._marked.values():
            for marked in methods.values():
                spreads.append(marked.counted.buckets)
                for status, count in marked.counted.statuses.items():
                    requests += count
                    if status >= 500:
                        failed += count
                    elif 400 <= status < 499:
                        refused += count
        buckets = list(map(sum, zip(*spreads, strict=True))) if spreads else _EMPTY
        self._note(Tally(requests, failed, refused, 0, buckets, 0.0), now)

    def _follow(self, routes: Mapping[Key, Series], now: float) -> None:
        """Whatever is counted is marked, and nothing that is not counted any more."""
        for path in self._marked.keys() - routes.keys():
            self._forget(path)
        for path, route in routes.items():
            known = self._marked.get(path)
            if known is not None and any(each.counted is not route.methods.get(name) for name, each in known.items()):
                self._forget(path)  # it went away, and came back
                known = None
            if len(route.methods) != len(known or ()):
                known = self._marked.setdefault(path, {})
                for method, counted in route.methods.items():
                    if method not in known:
                        known[method] = _Marked(counted, self._read_at)

    def _forget(self, path: Key) -> None:
        """What it counted is not to be missed in the next total."""
        for marked in self._marked.pop(path).values():
            statuses = marked.counted.statuses
            total = self._total
            total.requests -= sum(statuses.values())
            total.failed -= _failed(statuses)
            total.refused -= _refused(statuses)
            total.buckets = list(map(sub, total.buckets, marked.counted.buckets))

    def _note(self, total: Tally, now: float) -> None:
        before, self._total = self._total, total
        elapsed = max(now - self._read_at, 1e-3)
        self._read_at = now
        requests = max(0, total.requests - before.requests) / elapsed
        failed = max(0, total.failed - before.failed) / elapsed
        refused = max(0, total.refused - before.refused) / elapsed
        buckets = list(map(sub, total.buckets, before.buckets))
        self.seconds.append(Second.of(round(now), requests, failed, refused, buckets))


class Sum:
    """The histories of several workers as one, from the packed ``lines`` of each. For use in a thread."""

    def __init__(self, packed: Iterable[str], pause: Callable[[], None] = let_others_run) -> None:
        self._lately: dict[Key, dict[str, Tally]] = {}
        histories: list[dict[int, Any]] = []
        for text in packed:
            seconds, *lines = unpack(text)
            histories.append({at: counts for at, *counts in orjson.loads(seconds)})
            for line in lines:
                pause()
                for path, tallies in orjson.loads(line):
                    self._add(self._lately.setdefault(tuple(path), {}), tallies)
        self.seconds = list(_second_by_second([history for history in histories if history]))

    def lately(self, path: Key) -> dict[str, Tally]:
        """As that of ``History``."""
        return self._lately.get(path, {})

    def _add(self, known: dict[str, Tally], tallies: Iterable[Any]) -> None:
        for method, *counts in tallies:
            tally = Tally(*counts)
            if method in known:
                known[method].add(tally)
            else:
                known[method] = tally


LATE = 2
"""Seconds for which the sum waits for a worker's sample."""


def _second_by_second(histories: Sequence[Mapping[int, Any]]) -> Iterator[Second]:
    latest = [max(history) for history in histories] or [0]
    end = max(min(latest), max(latest) - LATE)
    for at in range(end - SECONDS + 1, end + 1):
        counts = [history[at] for history in histories if at in history]
        if counts:
            requests, failed, refused, buckets = zip(*counts, strict=True)
            summed = list(map(sum, zip(*buckets, strict=True)))
            yield Second.of(at, sum(requests), sum(failed), sum(refused), summed)


def _plain(tallies: Mapping[str, Tally]) -> list[Any]:
    return [
        (method, tally.requests, tally.failed, tally.refused, tally.limited, tally.buckets, tally.seconds)
        for method, tally in tallies.items()
    ]
