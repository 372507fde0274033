"""One run of wrk, and what it said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen

SCRIPT = Path(__file__).with_name("wrk.lua")


class NoResult(Exception):
    """wrk ended without one; the message is what it said."""


@frozen
class Result:
    """Latencies are milliseconds. ``errors`` counts connect, read, write, status (400 and above) and timeout."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float
    errors: Mapping[str, int]

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def parse(output: str) -> Result:
    """The line that ``wrk.lua`` printed. Raises ``NoResult`` if it is not there."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            said = json.loads(line.removeprefix("RESULT "))
            return Result(**said)
    raise NoResult(f"wrk printed no result: {output.strip()}")


def argv(url: str, seconds: int, connections: int, headers: Iterable[tuple[str, str]] = ()) -> list[str]:
    """One thread: the load has one core. ``seconds`` is whole because wrk takes no fractions."""
    fields = [f"--header={name}: {value}" for name, value in headers]
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", f"--script={SCRIPT}", *fields, url]


def run(url: str, seconds: int, connections: int, headers: Iterable[tuple[str, str]] = ()) -> Result:
    """Load ``url``; blocks for ``seconds``. Raises ``NoResult``."""
    done = subprocess.run(argv(url, seconds, connections, headers), capture_output=True, text=True, check=False)
    return parse(done.stdout + done.stderr)
