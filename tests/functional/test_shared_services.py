"""What several workers know of a service together: its circuit, its health, its connections."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from support.asking import circuit, metrics, post
from support.daemon import Daemon, gateway
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start
from .test_workers import workers

WORKERS = 4
ALL = [{"path": "/*", "service": "main"}]
BREAKER = {"error_rate": 0.5, "window": "60s", "min_requests": 40, "open_for": "10m", "half_open_requests": 2}


def serve(start: Start, service: Service, *, gateway_settings: Any = None, **settings: Any) -> Daemon:
    main = {"targets": [service.url], "circuit_breaker": BREAKER, **settings}
    document = gateway(services={"main": main}, routes=ALL, workers=WORKERS, **(gateway_settings or {}))
    daemon = start(document)
    eventually(lambda: len(workers(daemon)) == WORKERS)
    return daemon


def answer(status: int) -> Callable[[Received], None]:
    def behave(received: Received) -> None:
        received.conversation.answer(status, body=b"{}")

    return behave


def test_a_circuit_opens_once_for_all_workers(start: Start, service: Service) -> None:
    """With the outcomes of all: not one request too many reaches the service, and it is one event for operators."""
    service.behave = answer(500)
    daemon = serve(start, service)
    assert [daemon.get("/a").status for _ in range(60)] == [500] * 40 + [503] * 20
    shown = circuit(daemon)
    assert (shown["state"], shown["opened"], shown["why"]) == ("open", 1, "40 of 40 failed in 60 s")
    eventually(lambda: 'gateway_circuit_breaker_transitions_total{service="main",to="open"} 1.0' in metrics(daemon))
    (line,) = [line for line in daemon.log.splitlines() if "circuit of main opened" in line]
    assert re.search(r" \[worker [0-3]: apigw\.upstream\.circuit#warn\] ", line)


def test_an_operator_opens_and_closes_it_for_all_workers(start: Start, service: Service, tmp_path: Any) -> None:
    """With one request for each, whoever answers it."""
    service.behave = answer(200)
    token = tmp_path / "token"
    token.write_text("t" * 40)
    daemon = serve(start, service, gateway_settings={"admin_token_file": str(token)})
    headers = f"Authorization: Bearer {'t' * 40}", "Content-Type: application/json"

    def act(action: str) -> None:
        assert post(daemon, "/circuits", {"service": "main", "action": action}, *headers).status == 200

    act("open")
    assert [daemon.get("/a").status for _ in range(20)] == [503] * 20
    act("close")
    assert [daemon.get("/a").status for _ in range(20)] == [200] * 20


def test_each_target_is_checked_by_one_worker(start: Start, service: Service) -> None:
    """On its connection. When that worker is killed another checks, and all know what it finds out."""
    service.behave = answer(200)
    check = {"path": "/health", "interval": "100ms", "unhealthy_after": 1}
    # Without a circuit, which would open before the other workers look after the targets.
    daemon = serve(start, service, health_check=check, circuit_breaker=None)

    def checkers() -> set[int]:
        """The connections of the last ten checks."""
        return {received.conversation.number for received in service.requests[-10:]}

    # While they start, another may be the first that is ready.
    eventually(lambda: len(daemon.status()["workers"]) == len(workers(daemon)))
    for process in (None, min(workers(daemon))):
        if process is not None:
            os.kill(process, signal.SIGKILL)
        service.requests.clear()
        eventually(lambda: len(service.requests) >= 10 and len(checkers()) == 1)
    service.behave = answer(500)
    eventually(lambda: {daemon.get("/a").code for _ in range(10)} == {"no_healthy_target"})


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it, though nobody here may have noticed."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLRDHUP)
    except ValueError:  # closed here
        return True
    return len(poll.poll(0)) > 0


def test_connections_to_a_target_are_counted_over_all_workers(start: Start, service: Service) -> None:
    """There are never more than allowed, and every worker's requests are answered, though one had them all before."""
    most = 0

    def behave(received: Received) -> None:
        nonlocal most
        most = max(most, sum(not closed(each.socket) for each in list(service._open)))
        received.conversation.answer(200, body=b"{}")

    service.behave = behave
    daemon = serve(start, service, max_connections=WORKERS)
    statuses: list[int] = []

    def ask() -> None:
        for _ in range(20):
            statuses.append(daemon.get("/a").status)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert statuses == [200] * 160
    assert 1 < most <= WORKERS
    for process in workers(daemon)[1:]:
        os.kill(process, signal.SIGKILL)
    assert [daemon.get("/a").status for _ in range(20)] == [200] * 20
