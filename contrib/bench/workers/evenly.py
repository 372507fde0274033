"""How evenly 64 connections are spread over eight workers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from statistics import median

from bench import wrk
from bench.figures import Verdict
from bench.ground import Ground
from bench.programs import HOST, Running
from bench.scenarios import BARE
from bench.workers.several import Several, several

WORKERS, CONNECTIONS = 8, 64
MOST = 1.25
"""Connections of the busiest worker, by the mean of all."""


def check(ground: Ground, origin: Running, repeats: int = 10) -> list[Verdict]:
    """Each time, wrk opens all connections at once and loads, and /status is asked in the middle."""
    gateway = several(ground, WORKERS, (origin.port,))
    return [verdict([_spread(gateway) for _ in range(repeats)])]


def _spread(gateway: Several) -> list[int]:
    url = f"http://{HOST}:{gateway.running.port}{BARE.path}"
    load = subprocess.Popen(wrk.argv(url, 3, CONNECTIONS), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        rows = gateway.status()["workers"]
    finally:
        load.wait()
    gateway.until(lambda status: status["connections"] == 0)
    return [row["connections"] for row in rows]


def verdict(spreads: Sequence[Sequence[int]]) -> Verdict:
    """Judges the worst of them. ``spreads`` are connections by worker."""
    shares = [max(spread) * len(spread) / sum(spread) for spread in spreads]
    whole = all(len(spread) == WORKERS and sum(spread) == CONNECTIONS for spread in spreads)
    seen = f"busiest {median(shares):.3f} of the mean, at worst {max(shares):.3f}, {len(shares)} times"
    details = () if whole else tuple(f"{sum(spread)} connections: {sorted(spread)}" for spread in spreads)
    wanted = f"at most {MOST}, each time"
    return Verdict(
        f"{CONNECTIONS} connections on {WORKERS} workers", whole and max(shares) <= MOST, seen, wanted, details
    )
