"""Reloads under load: not one request fails, each takes effect, and no request waits for one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from statistics import median

from bench import nginx, wrk
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Address, Load, Request, encode, explain, status_of
from bench.offered import Offered, offer
from bench.programs import HOST, Document, Place, Running, free_port, start
from bench.result import Result, quantile
from bench.rounds import start_origin
from bench.scenarios import BARE, USER_ROUTE, document, many_routes
from bench.workers.several import run, with_workers


def _generation(place: Place, number: int) -> Document:
    """The measured route, and one that only this generation has."""
    return document(place, (USER_ROUTE, {"path": f"/generation/{number}", "service": "origin"}))


async def check(ground: Ground, reloads: int = 200, connections: int = 64, patience: float = 10.0) -> list[Verdict]:
    """``reloads`` times a new configuration and SIGHUP, each waited for by asking for a route that only it has.

    The load is wrk's, where it is installed, with a few connections of our own beside it, which say what failed.
    """
    origin = start_origin(ground.cores.load, ground.directory, ground.stack, ground.say)
    gateway = ground.gateway(lambda place: _generation(place, 0), (origin.port,))
    address = address_of(gateway)
    load = Load(address, repeat(Request(encode(BARE.path, headers=BARE.headers))), max(4, connections // 8))
    running = asyncio.create_task(load.run())
    heavy = await _start_wrk(address, connections)
    if heavy is None:
        ground.say("wrk is not installed: the load is the bench's own, and lighter")
    began = time.monotonic()
    delays: list[float] = []
    try:
        await asyncio.sleep(1.0)
        for number in range(1, reloads + 1):
            delay = await _reload(gateway, address, number, patience)
            if delay is None:
                break
            delays.append(delay)
            if number % 50 == 0:
                ground.say(f"{number} reloads")
    finally:
        seconds = time.monotonic() - began
        load.stop()
        await running
        result = await _stop_wrk(heavy) if heavy else None
    tally = load.tally
    requests = tally.answered + (result.requests if result else 0)
    failed = len(tally.failures) + (result.failed if result else 0)
    seen = f"{len(delays)} took effect, {requests:,} requests ({requests / seconds:,.0f}/s), {failed} failed"
    if delays:
        seen += f"; in effect after {median(delays) * 1e3:.0f} ms, at worst {max(delays) * 1e3:.0f}"
    details = explain(tally.failures)
    if result and result.failed:
        details += (f"wrk: {dict(result.errors)}",)
    kept = len(delays) == reloads and failed == 0
    return [Verdict(f"{reloads} reloads under full load", kept, seen, "all in effect, no request failed", details)]


async def waits(
    ground: Ground, origin: Running, workers: int = 1, reloads: int = 20, routes: int = 10_000, rate: float = 500.0
) -> list[Verdict]:
    """The longest wait of any request, without reloads and with, of ``routes`` routes each.

    One process has the proxy's core. Workers have both, and share one with the load, as everywhere.
    """
    admin = free_port()

    def generation(place: Place, number: int) -> Document:
        whole = document(place, (*many_routes(routes), {"path": f"/generation/{number}", "service": "origin"}))
        return with_workers(whole, workers, admin) if workers > 1 else whole

    first = ground.variant.program(lambda place: generation(place, 0))
    if workers > 1:
        gateway = run(ground, first, admin, workers, (origin.port,)).running
    else:
        gateway = start(first, ground.cores.proxy, ground.directory, ground.stack, (origin.port,))
    address = address_of(gateway)
    # Before the load, which is sent by this process.
    files = [_write(gateway.place, generation(gateway.place, number), number) for number in range(1, reloads + 1)]
    request = encode(BARE.path, headers=BARE.headers)

    def load(wanted: Callable[[int], bool]) -> list[Offered]:
        runs: list[Offered] = []
        while wanted(len(runs)):
            runs.append(offer(address, request, nginx.ANSWER.encode(), rate, 2.0, CONNECTIONS, "even"))
        return runs

    without = await asyncio.to_thread(load, lambda done: done < reloads)
    delays: list[float] = []
    running = True
    loading = asyncio.create_task(asyncio.to_thread(load, lambda _: running))
    try:
        for number, file in enumerate(files, 1):
            delay = await _use(gateway, address, file, number, PATIENCE, 0.05)
            if delay is None:
                break
            delays.append(delay)
            ground.say(f"reload {number} in effect after {delay:.1f} s")
    finally:
        running = False
        within = await loading
    failed = sum(run.failed for run in (*without, *within))
    longest = _longest(within) - _longest(without)
    seen = (
        f"{_told(within)} ms with {len(delays)} reloads, {_told(without)} without (p50, p99, longest); {failed} failed"
    )
    if delays:
        seen += f"; in effect after {median(delays):.1f} s, at worst {max(delays):.1f}"
    kept = len(delays) == reloads and not failed and longest <= MOST_LONGER
    where = "one process" if workers == 1 else f"{workers} workers"
    promise = f"longest wait with reloads of {routes:,} routes, {where}"
    return [Verdict(promise, kept, seen, f"at most {MOST_LONGER:.0f} ms longer")]


MOST_LONGER = 20.0
"""Milliseconds."""

PATIENCE = 60.0

CONNECTIONS = 8
"""With one, a request would also wait for those before it: it would have to be answered within 2 ms."""


def _longest(runs: list[Offered]) -> float:
    return max(run.percentile(1.0) for run in runs)


def _told(runs: list[Offered]) -> str:
    whole = sorted(chain.from_iterable(run.latencies for run in runs))
    return " · ".join(f"{quantile(whole, share) * 1e3:.1f}" for share in (0.5, 0.99, 1.0))


def _write(place: Place, content: Document, number: int) -> Path:
    """A configuration that is not in its place yet."""
    file = place.directory / f"gateway.yaml.{number}"
    file.write_text(json.dumps(content))
    return file


async def _reload(gateway: Running, address: Address, number: int, patience: float) -> float | None:
    file = _write(gateway.place, _generation(gateway.place, number), number)
    return await _use(gateway, address, file, number, patience, 0.005)


async def _use(
    gateway: Running, address: Address, file: Path, number: int, patience: float, interval: float
) -> float | None:
    """Seconds until the new generation answers; ``None`` if it does not within ``patience``."""
    os.replace(file, gateway.place.directory / "gateway.yaml")
    began = time.monotonic()
    gateway.signal(signal.SIGHUP)
    while time.monotonic() - began < patience:
        try:
            if await status_of(address, f"/generation/{number}", patience) == 200:
                return time.monotonic() - began
        except OSError:
            return None
        await asyncio.sleep(interval)
    return None


async def _start_wrk(address: Address, connections: int) -> asyncio.subprocess.Process | None:
    command = wrk.argv(f"http://{HOST}:{address[1]}{BARE.path}", 3600, connections, BARE.headers)
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True
        )
    except FileNotFoundError:
        return None


async def _stop_wrk(process: asyncio.subprocess.Process) -> Result:
    """wrk prints what it has counted when it is interrupted."""
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()
    return wrk.parse(output.decode())
