"""What several workers know of a service together: its circuit, its health, its connections."""

from __future__ import annotations

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
    assert 'gateway_circuit_breaker_transitions_total{service="main",to="open"} 1.0' in metrics(daemon)
    assert daemon.log.count("circuit of main opened") == 1


def test_an_operator_closes_it_for_all_workers(start: Start, service: Service, tmp_path: Any) -> None:
    service.behave = answer(200)
    token = tmp_path / "token"
    token.write_text("t" * 40)
    daemon = serve(start, service, gateway_settings={"admin_token_file": str(token)})
    said = post(
        daemon,
        "/circuits",
        {"service": "main", "action": "open"},
        f"Authorization: Bearer {'t' * 40}",
        "Content-Type: application/json",
    )
    assert said.status == 200
    assert [daemon.get("/a").status for _ in range(20)] == [503] * 20
