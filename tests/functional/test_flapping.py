"""A target whose process comes and goes all the time, beside one that stays."""

from __future__ import annotations

import threading
import time

from support.client import Client
from support.daemon import gateway
from support.services import Received, Service

from .conftest import Start

PERIOD = 0.25
"""Seconds that it is there, and then away."""


def answer(received: Received) -> None:
    received.conversation.answer(200, body=b"{}")


def test_clients_see_nothing_of_a_target_that_comes_and_goes(start: Start) -> None:
    """Connections go elsewhere, and what died without an answer is sent again; it is used in between."""
    steady, flapping = Service(answer), Service(answer)
    port = flapping.port
    main = {"targets": [steady.url, flapping.url], "balance": "least_requests", "ejection": {"for": "100ms"}}
    daemon = start(gateway(services={"main": main}, routes=[{"path": "/*", "service": "main"}]))
    ends = time.monotonic() + 8 * PERIOD
    statuses: list[int] = []
    served = 0

    def load() -> None:
        with Client(daemon.address) as client:
            while time.monotonic() < ends:
                statuses.append(client.get("/a").status)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    while time.monotonic() < ends:
        time.sleep(PERIOD)
        served += len(flapping.requests)
        flapping.close()
        time.sleep(PERIOD)
        flapping = Service(answer, port=port)
    for client in clients:
        client.join()
    steady.close()
    flapping.close()
    assert len(statuses) > 100
    assert [status for status in statuses if status != 200] == []
    assert served > 20
