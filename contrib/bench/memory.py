"""Memory: large bodies must not make the process grow, and idle connections must be cheap."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from bench import origin
from bench.figures import Verdict
from bench.ground import Ground, address_of
from bench.load import Address, encode
from bench.machine import MIB, forget_peak, memory, peak_rss
from bench.programs import Document, Place, Running
from bench.scenarios import document
from bench.transfers import TransferFailed, download, upload

PATH = "/api/v1/users/42"
MOST_GROWTH = 32 * MIB
MOST_IDLE = 150 * MIB


def _config(place: Place) -> Document:
    return document(place, max_body_size=None)


async def check(ground: Ground, size: int = 1024 * MIB, stall: float = 5.0, connections: int = 5000) -> list[Verdict]:
    """``size`` bytes down and up, with stalls of ``stall`` seconds, then ``connections`` idle ones."""
    server = await origin.listen()
    async with server:
        gateway = ground.gateway(_config, (origin.port_of(server),))
        address = address_of(gateway)
        # Once each way in small, so that what the first request costs is not taken for growth.
        await download(address, PATH, MIB, 0.0)
        await upload(address, PATH, MIB, 0.0)
        bodies: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            (f"download of {size // MIB} MiB, client stalls {stall:g} s", lambda: download(address, PATH, size, stall)),
            (f"upload of {size // MIB} MiB, client stalls {stall:g} s", lambda: upload(address, PATH, size, stall)),
            (
                f"upload of {size // MIB} MiB, origin stalls {stall:g} s",
                lambda: upload(address, PATH, size, 0.0, stall),
            ),
        ]
        verdicts = []
        for promise, transfer in bodies:
            ground.say(promise)
            verdicts.append(await _growth(gateway, promise, transfer))
        ground.say(f"{connections:,} idle connections")
        verdicts.append(await idle(gateway, address, connections))
        return verdicts


async def _growth(gateway: Running, promise: str, transfer: Callable[[], Awaitable[None]]) -> Verdict:
    wanted = f"all bytes, and growth under {MOST_GROWTH // MIB} MiB"
    before = memory(gateway.session).rss
    forget_peak(gateway.session)
    try:
        await transfer()
    except (OSError, TransferFailed) as error:
        return Verdict(promise, False, str(error) or repr(error), wanted)
    grown = peak_rss(gateway.session) - before
    return Verdict(promise, grown < MOST_GROWTH, f"grew by {grown / MIB:.1f} MiB from {before / MIB:.1f}", wanted)


async def idle(gateway: Running, address: Address, connections: int) -> Verdict:
    """Open ``connections``, one request over each, and weigh the process while all of them wait for nothing."""
    loop = asyncio.get_running_loop()
    before = memory(gateway.session).rss
    gate = asyncio.Semaphore(64)
    request, expected = encode(PATH), origin.answer(PATH)

    async def open_one(stack: ExitStack) -> socket.socket:
        async with gate:
            connected = stack.enter_context(socket.socket())
            connected.setblocking(False)
            await loop.sock_connect(connected, address)
            await loop.sock_sendall(connected, request)
            answer = b""
            while not answer.endswith(expected):
                data = await loop.sock_recv(connected, 65536)
                if not data:
                    raise ConnectionError(f"closed after {answer[:80]!r}")
                answer += data
            return connected

    with ExitStack() as stack:
        opened = await asyncio.gather(*(open_one(stack) for _ in range(connections)), return_exceptions=True)
        await asyncio.sleep(1.0)
        used = memory(gateway.session).rss
        alive = sum(isinstance(one, socket.socket) and _is_open(one) for one in opened)
    each = (used - before) / connections / 1024
    failures = {str(one) for one in opened if isinstance(one, BaseException)}
    why = f"; {'; '.join(sorted(failures)[:3])}" if failures else ""
    return Verdict(
        f"{connections:,} idle keep-alive connections",
        used < MOST_IDLE and alive == connections,
        f"{used / MIB:.1f} MiB in all ({each:.1f} KiB each), {alive:,} open{why}",
        f"all open, under {MOST_IDLE // MIB} MiB in all",
    )


def _is_open(connected: socket.socket) -> bool:
    try:
        return connected.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
