"""Reloads under full load: not one request fails, and each takes effect."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from itertools import repeat
from statistics import median

from bench import wrk
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Address, Load, Request, encode, explain, status_of
from bench.programs import HOST, Document, Place, Running
from bench.result import Result
from bench.rounds import start_origin
from bench.scenarios import BARE, USER_ROUTE, document


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


async def _reload(gateway: Running, address: Address, number: int, patience: float) -> float | None:
    """Seconds until the new generation answers; ``None`` if it does not within ``patience``."""
    file = gateway.place.directory / "gateway.yaml"
    written = file.with_suffix(".new")
    written.write_text(json.dumps(_generation(gateway.place, number)))
    os.replace(written, file)
    began = time.monotonic()
    gateway.signal(signal.SIGHUP)
    while time.monotonic() - began < patience:
        try:
            if await status_of(address, f"/generation/{number}", patience) == 200:
                return time.monotonic() - began
        except OSError:
            return None
        await asyncio.sleep(0.005)
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
