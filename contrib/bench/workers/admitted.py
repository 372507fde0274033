"""A limit over all workers is exact: of more requests than it allows, in a rush, as many as allowed are admitted."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import partial

from bench.figures import Verdict
from bench.ground import Ground
from bench.programs import HOST, Document, Place, Running
from bench.result import NoResult
from bench.scenarios import BARE, document
from bench.workers.several import Several, Waits, several

WORKERS, ASKED, ALLOWED = 4, 160_000, 100_000
ALGORITHMS = ("log", "counter")
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx", re.M)


def _config(place: Place, algorithm: str) -> Document:
    limit = {"endpoint": "/api/v1/*", "limit": ALLOWED, "window": "1h", "scope": "ip", "algorithm": algorithm}
    return {**document(place), "rate_limits": [limit]}


def check(ground: Ground, origin: Running, connections: int) -> list[Verdict]:
    """With each algorithm, 160,000 requests as fast as h2load sends them. Raises ``LookupError`` without h2load."""
    if not shutil.which("h2load"):
        raise LookupError("h2load is not installed: it sends an exact number of requests")
    found = []
    for algorithm in ALGORITHMS:
        gateway = several(ground, WORKERS, (origin.port,), partial(_config, algorithm=algorithm))
        found.append(verdict(algorithm, *_ask(gateway, connections), gateway.locks()))
        gateway.running.stop()
    return found


def _ask(gateway: Several, connections: int) -> tuple[int, int, int]:
    url = f"http://{HOST}:{gateway.running.port}{BARE.path}"
    size = [f"--requests={ASKED}", f"--clients={connections}", "--threads=1", "--h1"]
    done = subprocess.run(["h2load", *size, url], capture_output=True, text=True, check=False)
    return parse(done.stdout + done.stderr)


def parse(output: str) -> tuple[int, int, int]:
    """How many were admitted, refused, and failed, of what h2load printed. Raises ``NoResult``."""
    found = _STATUSES.search(output)
    if not found:
        raise NoResult(f"h2load printed no result: {output.strip()[-500:]}")
    admitted, refused, failed = map(int, found.groups())
    return admitted, refused, failed


def verdict(algorithm: str, admitted: int, refused: int, failed: int, waits: Waits) -> Verdict:
    lost = ASKED - admitted - refused - failed
    seen = f"{admitted:,} admitted, {refused:,} refused, {failed + lost:,} failed; {waits}"
    kept = (admitted, refused) == (ALLOWED, ASKED - ALLOWED)
    promise = f"{WORKERS} workers asked for {ASKED:,}, algorithm {algorithm}"
    return Verdict(promise, kept, seen, f"exactly {ALLOWED:,} admitted")
