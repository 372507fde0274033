"""What a load tool says of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen


class NoResult(Exception):
    """A tool ended without one; the message is what it said."""


@frozen
class Result:
    """Latencies are milliseconds, ``bytes`` were received. ``errors`` counts what failed, by kind: with wrk connect,
    read, write, status (400 and above) and timeout."""

    requests: int
    bytes: int
    seconds: float
    p50: float
    p95: float
    p99: float
    errors: Mapping[str, int]

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class Tool(Protocol):
    """Loads a URL for so many seconds over so many connections, with one request at a time outstanding on each or a
    fixed number. Of ``authorizations`` it sends each in turn. Raises ``NoResult``."""

    def __call__(
        self,
        url: str,
        seconds: int,
        connections: int,
        headers: Sequence[tuple[str, str]] = (),
        authorizations: Sequence[str] = (),
    ) -> Result: ...


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` of an ascending sequence does not exceed (the nearest rank); 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
