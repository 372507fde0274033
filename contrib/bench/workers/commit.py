"""For how long workers answer differently during a reload: from the first that uses the new configuration to the last.

A client for each worker asks again and again, over a connection of its own, for a route that only the new
configuration has.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from statistics import median

from apigw.shared.slots import CONNECTIONS
from bench.figures import Verdict
from bench.ground import Ground
from bench.load import encode
from bench.programs import Document, Place, Running
from bench.scenarios import document, many_routes
from bench.workers.several import Several, several, with_workers

WORKERS, ROUTES = 4, 10_000
MOST = 0.05
"""Seconds."""

PATIENCE = 60.0
BETWEEN = 0.0005
"""Seconds between an answer and the next request of one client."""


def _generation(place: Place, number: int) -> Document:
    route = {"path": f"/generation/{number}", "service": "origin"}
    return document(place, [*many_routes(ROUTES - 1), route])


def check(ground: Ground, origin: Running, reloads: int = 5) -> list[Verdict]:
    gateway = several(ground, WORKERS, (origin.port,), lambda place: _generation(place, 0))
    with ExitStack() as stack:
        clients = connect_to_each(gateway, WORKERS, stack)
        firsts = []
        for number in range(1, reloads + 1):
            firsts.append(_reload(gateway, clients, number))
            ground.say(f"reload {number}: {spread(firsts[-1]) * 1e3:.1f} ms")
    return [verdict(firsts)]


def connect_to_each(gateway: Several, workers: int, stack: ExitStack) -> list[socket.socket]:
    """A connection to each worker: the slot whose number of connections rises is that of the one who has accepted.

    Raises ``LookupError`` if one does not accept.
    """
    page = gateway.page()
    stack.callback(page.close)
    slots = page.slots
    found: dict[int, socket.socket] = {}
    for _ in range(16 * workers):
        before = [slots.get(worker, CONNECTIONS) for worker in range(workers)]
        client = stack.enter_context(socket.create_connection(gateway.address, PATIENCE))
        # Once there is an answer, it has been accepted.
        status_of(client, "/generation/0")
        risen = [worker for worker in range(workers) if slots.get(worker, CONNECTIONS) > before[worker]]
        if len(risen) == 1:
            found.setdefault(risen[0], client)
        if len(found) == workers:
            return list(found.values())
    raise LookupError(f"only workers {sorted(found)} of {workers} have accepted a connection")


def status_of(client: socket.socket, path: str) -> int:
    """The status with which one GET is answered. Raises ``OSError`` if the connection ends."""
    client.sendall(encode(path))
    data = b""
    while not complete(data):
        piece = client.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {data[:80]!r}")
        data += piece
    return int(data[9:12])


def complete(data: bytes) -> bool:
    """Whether this is a whole answer; it has a ``Content-Length``."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    raise ConnectionError(f"no Content-Length in {head!r}")


def _reload(gateway: Several, clients: Sequence[socket.socket], number: int) -> list[float]:
    """When each client had the first answer of the new configuration. Raises ``OSError`` if one had none."""
    place = gateway.running.place
    file = place.directory / "gateway.yaml"
    written = file.with_suffix(".new")
    written.write_text(json.dumps(with_workers(_generation(place, number), WORKERS, gateway.admin[1])))
    os.replace(written, file)
    firsts = [float("inf")] * len(clients)
    began = time.monotonic()
    gateway.running.signal(signal.SIGHUP)

    def ask(index: int) -> None:
        ends_at = time.monotonic() + PATIENCE
        with suppress(OSError):
            while time.monotonic() < ends_at and status_of(clients[index], f"/generation/{number}") != 200:
                time.sleep(BETWEEN)
            firsts[index] = time.monotonic()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if max(firsts) >= began + PATIENCE:
        raise ConnectionError(f"a worker does not use configuration {number}: {gateway.running.last_words()}")
    gateway.until(lambda status: status["reloads"] == number and not status["reloading"])
    return firsts


def spread(firsts: Sequence[float]) -> float:
    """Seconds from the first worker to the last; what the clients wait between two requests is in it."""
    return max(firsts) - min(firsts)


def verdict(firsts: Sequence[Sequence[float]]) -> Verdict:
    """``firsts``: for each reload, when each worker first answered with the new configuration."""
    spreads = [1e3 * spread(one) for one in firsts]
    seen = f"{median(spreads):.1f} ms, at worst {max(spreads):.1f}, {len(spreads)} reloads"
    promise = f"from the first of {WORKERS} workers' commit to the last, {ROUTES:,} routes"
    return Verdict(promise, max(spreads) <= MOST * 1e3, seen, f"at most {MOST * 1e3:.0f} ms, each time")
