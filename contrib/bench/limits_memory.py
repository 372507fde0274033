"""Memory: what many callers of an ip limit leave behind in the process, and that it goes again with their window.

A million distinct addresses are counted by the store itself, in a process of its own that does nothing else: through
the gateway's front door they would take minutes. The gateway gets as many as it takes to see that it behaves alike.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from ipaddress import IPv4Address
from itertools import count

from attrs import frozen

from bench import origin
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Load, Request, encode
from bench.machine import MIB, PROC, memory, parse_kilobytes
from bench.programs import HOST, REPOSITORY, Document, Place, free_port
from bench.scenarios import document

CALLERS = 1_000_000
MOST = 200 * MIB
MOST_GROWTH = 16 * MIB
PATH = "/api/v1/users/42"


@frozen
class Weighed:
    """Resident bytes of a process: before the first caller, with all of them, and after the last one's window."""

    before: int
    full: int
    after: int
    kept: int

    def __str__(self) -> str:
        full, before, after = (f"{size / MIB:.0f}" for size in (self.full, self.before, self.after))
        return f"{full} MiB in all, {before} before, {after} after the window, {self.kept:,} keys left"


async def check(ground: Ground, callers: int = CALLERS, through: int = 50_000, window: int = 10) -> list[Verdict]:
    """``callers`` in the store alone, ``through`` the gateway, whose limit has a window of so many seconds."""
    verdicts = []
    for algorithm in ("log", "counter"):
        ground.say(f"{callers:,} addresses in the store, algorithm {algorithm}")
        argv = [sys.executable, "-m", "bench.limits_memory", algorithm, str(callers)]
        asking = await asyncio.create_subprocess_exec(
            *argv, cwd=REPOSITORY / "contrib", stdout=subprocess.PIPE, env={"PYTHONPATH": str(REPOSITORY)}
        )
        said, _ = await asking.communicate()
        weighed = Weighed(**json.loads(said))
        promise = f"{callers:,} addresses against an ip limit, {algorithm} (the store alone)"
        shrank = weighed.after - weighed.before < (weighed.full - weighed.before) / 2
        wanted = f"under {MOST // MIB} MiB, and afterwards half of what was added is given back"
        verdicts.append(Verdict(promise, weighed.full < MOST and shrank and not weighed.kept, str(weighed), wanted))
    ground.say(f"{through:,} addresses through the gateway")
    weighed = await _through(ground, through, window)
    # So few fit into room that the gateway has anyway: that none is kept is what shows.
    kept = weighed.full - weighed.before < MOST_GROWTH and not weighed.kept
    wanted = f"growth under {MOST_GROWTH // MIB} MiB, and no key left"
    verdicts.append(Verdict(f"{through:,} addresses through the gateway", kept, str(weighed), wanted))
    return verdicts


def weigh(algorithm: str, callers: int) -> Weighed:
    """Count so many callers once each, in this process, and let their window pass. The time is ours."""
    from twisted.internet.task import Clock

    from apigw.policy.limits.arithmetic import compile_limit
    from apigw.policy.limits.keys import scope_key
    from apigw.policy.limits.memory import MemoryStore
    from apigw.policy.limits.model import RateLimit

    clock = Clock()
    clock.rightNow = 1.8e9
    store = MemoryStore(clock, clock.seconds, max(callers, 1_000_000))
    store.start()
    limit = compile_limit(RateLimit("/api/*", 100, 60.0, scope="ip", algorithm=algorithm))
    before = _resident()
    for number in range(callers):
        store.check([(limit, scope_key("ip", None, None, str(IPv4Address(number + 2**24))))])
    full = _resident()
    for _ in range(2 * 60 + 60):
        clock.pump([0.25] * 4)
    store.stop()
    return Weighed(before, full, _resident(), len(store))


def _resident() -> int:
    return parse_kilobytes((PROC / "self/status").read_text(), "VmRSS")


def _config(admin: int, window: int, place: Place) -> Document:
    limits = [{"endpoint": "/api/*", "limit": 100, "window": f"{window}s", "scope": "ip"}]
    whole = document(place, trusted_proxies=[f"{HOST}/32"], admin=f"tcp:{admin}:interface={HOST}")
    return {**whole, "rate_limits": limits}


async def _through(ground: Ground, callers: int, window: int) -> Weighed:
    admin = free_port()
    server = await origin.listen()
    async with server:
        gateway = ground.gateway(lambda place: _config(admin, window, place), (origin.port_of(server),))
        warm = Load(address_of(gateway), _requests(1_000, 0))
        await _run(warm, 1_000)
        before = memory(gateway.session).rss
        await _run(Load(address_of(gateway), _requests(callers, 2**20)), callers)
        full = memory(gateway.session).rss
        ground.say("waiting for the window and the sweep")
        for _ in range(window + 90):
            if not (kept := _keys(admin)):
                break
            await asyncio.sleep(1.0)
        return Weighed(before, full, memory(gateway.session).rss, kept)


async def _run(load: Load, answers: int) -> None:
    running = asyncio.create_task(load.run())
    while load.tally.answered + len(load.tally.failures) < answers:
        await asyncio.sleep(0.02)
    load.stop()
    await running


def _requests(callers: int, first: int) -> Iterator[Request]:
    for number in count():
        address = IPv4Address(2**24 + first + number % callers)
        yield Request(encode(PATH, headers=[("X-Forwarded-For", str(address))]))


def _keys(admin: int) -> int:
    connection = HTTPConnection(HOST, admin, timeout=10)
    try:
        connection.request("GET", "/limits")
        return int(json.loads(connection.getresponse().read())["store"]["keys"])
    finally:
        connection.close()


if __name__ == "__main__":
    one = weigh(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"before": one.before, "full": one.full, "after": one.after, "kept": one.kept}))
