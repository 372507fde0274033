"""One of two targets dies under a load of GETs: no client sees an error."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import count

from bench import origin
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Load, Request, encode, explain
from bench.machine import cpu_seconds
from bench.programs import python_origin, start
from bench.scenarios import HEADERS, document


def requests() -> Iterator[Request]:
    """Every fourth takes a moment, so that some are in the target's hands when it dies."""
    for number in count():
        path = f"/api/v1/users/{number}"
        query = "" if number % 4 else "?wait=0.02"
        yield Request(encode(path + query, headers=HEADERS), origin.answer(path))


async def check(ground: Ground, connections: int = 32, before: float = 2.0, after: float = 4.0) -> list[Verdict]:
    """SIGKILL for one target ``before`` seconds into the load, which goes on for ``after`` seconds."""
    targets = [
        start(python_origin(name), ground.cores.load, ground.directory, ground.stack)
        for name in ("target-1", "target-2")
    ]
    gateway = ground.gateway(document, tuple(target.port for target in targets))
    idle = [cpu_seconds(target.session) for target in targets]
    load = Load(address_of(gateway), requests(), connections)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(before)
    both = all(cpu_seconds(target.session) > spent for target, spent in zip(targets, idle, strict=True))
    answered, in_flight = load.tally.answered, load.in_flight
    os.killpg(targets[0].session, signal.SIGKILL)
    await asyncio.sleep(after)
    load.stop()
    tally = await running
    seen = (
        f"{answered:,} answered before by {'both targets' if both else 'one target'}, {in_flight} in flight then, "
        f"{tally.answered - answered:,} answered after; {len(tally.failures)} failed, "
        f"p99 {tally.percentile(0.99) * 1e3:.0f} ms"
    )
    kept = not tally.failures and both and tally.answered > answered
    wanted = "both in use before, no client sees an error"
    return [Verdict("one of two targets killed under load", kept, seen, wanted, explain(tally.failures))]
