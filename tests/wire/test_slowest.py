"""The slowest client: at what rate, over which time, and whose fault it is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.upstream import Recorder
from twisted.internet.task import Clock

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.pool import Pool, PoolSettings
from apigw.wire.slowest import Slowest

from .test_pool import Endpoint, result
from .test_pool import use as exchange_on


def connection(receiver: Recorder | None) -> HTTP1Connection:
    """One that carries an exchange, or is idle."""
    made = HTTP1Connection(Deadlines(Clock()), *[lambda _: None] * 3)
    made.receiver = receiver
    return made


def looked(*moved: list[int | None], every: float = 0.25) -> list[int | None]:
    """How much each client has moved at each look. Which one was the slowest, each time."""
    slowest = Slowest()
    clients = [Recorder() for _ in moved]
    connections = [connection(None), *map(connection, clients)]
    found: list[int | None] = []
    for number, counts in enumerate(zip(*moved, strict=True)):
        for client, count in zip(clients, counts, strict=True):
            client.count = count
        one: Any = slowest.look(connections, number * every)
        found.append(None if one is None else clients.index(one))
    return found


@pytest.mark.parametrize(
    ("moved", "last"),
    [
        ([[0, 0, 0, 0]], 0),
        ([[0, 0, 0]], None),  # not seen for long enough
        ([[0, 0, 0, 511]], 0),
        ([[0, 0, 0, 512]], None),  # 1 KiB a second
        ([[0, 10**6, 10**6, 10**6]], 0),  # its buffers were filled
        ([[5000, 5000, 5000, 5000]], 0),  # what was before the first look does not help
        ([[0, 0, 100, 200], [0, 0, 0, 100], [0, 0, 0, 9999]], 1),
        ([[None, None, None, None], [0, 0, 0, 400]], 1),  # its service is waited for
        ([[0, None, 0, 0, 0]], None),  # seen anew
        ([[0, 0, 0, None, 0, 0]], 0),
        ([[0, 0, 0, None]], None),
        ([[0, 0, 5120, *[5120] * 18]], None),  # over five seconds
        ([[0, 0, 5120, *[5120] * 22]], 0),
    ],
)
def test_who_is_slow(moved: list[list[int | None]], last: int | None) -> None:
    """The lowest rate over five seconds, or as long as it was seen, and only below 1 KiB/s."""
    assert looked(*moved)[-1] == last


def test_the_slowest_gives_way_to_one_that_has_waited() -> None:
    """Not before; one at a time; and nobody is looked at once there is room again."""
    clock = Clock()
    deadlines = Deadlines(clock)
    deadlines.start()
    endpoint = Endpoint(clock)
    settings = PoolSettings(connect_timeout=5, max_connections=2)
    pool = Pool(endpoint, partial(HTTP1Connection, deadlines), settings, deadlines)
    clients = []
    for count in (0, 10):
        given = pool.connect()
        transport = endpoint.accept()
        client = exchange_on(result(given), transport, b"")
        client.count = count
        clients.append((client, transport))
    clock.pump([0.1] * 30)
    waiting = [pool.connect(), pool.connect()]
    clock.pump([0.1] * 2)
    assert not any(client.ended_as_slow for client, _ in clients)
    clock.pump([0.1] * 4)
    assert [client.ended_as_slow for client, _ in clients] == [True, False]
    for client, transport in clients:
        client.ended_as_slow = False
        transport.disconnect()
    for each in waiting:
        endpoint.accept()
        result(each).abandon()
    clock.pump([0.1] * 20)
    assert pool.connections == 0
    assert pool.deadline == NEVER
