"""SIGTERM under load: no request that had arrived whole before it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from subprocess import TimeoutExpired

from bench import origin
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Load, Request, connect_and_send, encode, explain
from bench.machine import MIB
from bench.scenarios import HEADERS, document
from bench.transfers import TransferFailed, download

SLOW = 0.5


def requests() -> Iterator[Request]:
    """Every answer is told from every other; one in 32 takes half a second."""
    for number in count():
        path = f"/api/v1/users/{number}"
        query = f"?wait={SLOW}" if number % 32 == 0 else ""
        yield Request(encode(path + query, headers=HEADERS), origin.answer(path))


async def check(ground: Ground, connections: int = 64, queued: int = 32, patience: float = 40.0) -> list[Verdict]:
    """SIGTERM while ``connections`` send, ``queued`` more wait to be accepted, and a download is half done.

    The gateway is stopped (SIGSTOP) while the queue is filled and the signal sent, so that what came first is a fact
    and no matter of timing: when it goes on, all these requests lie in the kernel's buffers, the signal pending.
    """
    async with await origin.listen() as server:
        gateway = ground.gateway(document, (origin.port_of(server),))
        address = address_of(gateway)
        every = requests()
        load = Load(address, every, connections)
        running = asyncio.create_task(load.run())
        half_way = asyncio.Event()
        body = asyncio.create_task(download(address, "/api/v1/users/large", 64 * MIB, 1.0, half_way))
        await asyncio.wait((asyncio.create_task(half_way.wait()), body), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.5)
        answered_before = load.tally.answered

        os.killpg(gateway.session, signal.SIGSTOP)
        waiting, full = [], 0
        for _ in range(queued):
            request = next(every)
            try:
                waiting.append((request, *connect_and_send(address, request)))
            except OSError:
                full += 1
        in_flight = load.in_flight
        moment = time.monotonic()
        gateway.signal(signal.SIGTERM)
        os.killpg(gateway.session, signal.SIGCONT)

        adopted = [asyncio.create_task(load.adopt(one, request, sent)) for request, one, sent in waiting]
        try:
            code: int | None = await asyncio.to_thread(gateway.process.wait, patience)
        except TimeoutExpired:
            code = None
        seconds = time.monotonic() - moment
        load.stop()
        await asyncio.gather(running, *adopted)
        failed = load.tally.sent_before(moment)
        later = len(load.tally.failures) - len(failed)
        broken = await _outcome(body)
    seen = (
        f"{answered_before:,} answered before; at the signal {in_flight} in flight, {len(waiting)} queued, "
        f"a download half done; {len(failed) + bool(broken)} of these failed"
    )
    details = explain(failed) + ((f"download: {broken}",) if broken else ())
    if full:
        seen += f"; {full} more found the queue full"
    end = "still running" if code is None else f"exit code {code}"
    after = f"{end} after {seconds:.1f} s; {later} later requests and connects failed"
    return [
        Verdict(
            "SIGTERM under load", not failed and not broken, seen, "no request that had arrived whole fails", details
        ),
        Verdict("end after SIGTERM", code == 0, after, f"exit code 0 within {patience:g} s"),
    ]


async def _outcome(body: asyncio.Task[None]) -> str:
    try:
        await body
    except (OSError, TransferFailed) as error:
        return str(error) or repr(error)
    return ""
