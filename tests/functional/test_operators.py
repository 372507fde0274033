"""What operators ask of several workers is answered for the whole gateway, whoever answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support.asking import asked, post
from support.daemon import Daemon, gateway
from support.samples import counted
from support.services import Service
from support.waiting import eventually

from .conftest import Start

WORKERS = 3
TOKEN = "a-token-of-at-least-16"
REQUESTS = "gateway_requests_total", "path", "status"
REFUSED = "gateway_rate_limit_violations_total", "endpoint"


@pytest.fixture(scope="module")
def daemon(in_front: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    full = file.with_name("access.log")
    full.symlink_to("/dev/full")
    service = Service()
    document = gateway(
        services={"main": {"targets": [service.url], "circuit_breaker": {}}},
        routes=[{"path": "/*", "service": "main"}],
        workers=WORKERS,
        admin_token_file=str(file),
        access_log={"file": str(full)},
    )
    limits = [{"endpoint": "/l", "limit": 1, "window": "1h", "scope": "ip"}]
    daemon = in_front(document | {"rate_limits": limits})
    eventually(lambda: len(workers(daemon)) == WORKERS)
    yield daemon
    service.close()


def workers(daemon: Daemon) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = daemon.status()["workers"]
    return rows


def acted(daemon: Daemon, action: str) -> Any:
    headers = f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"
    return post(daemon, "/circuits", {"service": "main", "action": action}, *headers).json


def test_a_row_for_each_worker(daemon: Daemon) -> None:
    """With its process, its connections and its requests, whose sums are the gateway's."""
    with daemon.connect() as one, daemon.connect() as other:
        assert one.get("/a").status and other.get("/a").status
        status = daemon.status()
    rows = status["workers"]
    assert status["process"] == daemon.process.pid
    assert [row["worker"] for row in rows] == list(range(WORKERS))
    assert len({row["process"] for row in rows}) == WORKERS
    assert status["connections"] == sum(row["connections"] for row in rows) == 2
    assert all(row["uptime"] >= 0 and row["lag"] >= 0 and row["in_flight"] == 0 for row in rows)
    assert all(row["answers"] for row in rows)


def test_the_status_page_is_that_of_all(daemon: Daemon) -> None:
    """Its history, its routes and its workers."""
    for _ in range(8):
        daemon.get("/page")

    def seen() -> bool:
        page = asked(daemon, "/status.json")
        assert len(page["workers"]) == WORKERS
        routes = [dict(zip(page["columns"], values, strict=True)) for values in page["routes"]]
        return bool(sum(page["history"]["requests"]) and any(route["requests"] >= 8 for route in routes))

    eventually(seen)


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(daemon: Daemon) -> None:
    """Every worker counts those that it has lost."""
    assert [daemon.get("/full").status for _ in range(12)] == [200] * 12
    eventually(lambda: counted(daemon, "gateway_log_lines_lost_total", "log").get(("access",), 0) >= 12)


def test_a_circuit_is_opened_in_every_worker(daemon: Daemon) -> None:
    """By hand, and closed again."""
    assert acted(daemon, "open")["state"] == "open"
    (shown,) = asked(daemon, "/circuits")["circuits"]
    assert (shown["state"], shown["forced"]) == ("open", True)
    assert [daemon.get("/x").status for _ in range(12)] == [503] * 12
    acted(daemon, "close")
    assert acted(daemon, "free")["state"] == "closed"
    assert [daemon.get("/x").status for _ in range(12)] == [200] * 12


def test_refusals_are_added_up(daemon: Daemon) -> None:
    """``/limits`` counts those of every worker, and so does ``/metrics``."""
    for _ in range(12):
        daemon.get("/l")
    (limit,) = asked(daemon, "/limits")["limits"]
    assert limit["violations"] > 0

    def counts() -> set[float | None]:
        refused = counted(daemon, *REFUSED).get(("/l",))
        return {refused, counted(daemon, *REQUESTS).get(("/*", "429"))}

    eventually(lambda: counts() == {limit["violations"]})


def test_no_counter_goes_backwards_when_a_worker_is_killed(daemon: Daemon) -> None:
    """What it had counted stays in the sum, and its death is counted."""
    for _ in range(12):
        daemon.get("/k")
        daemon.get("/l")
    (refused,) = asked(daemon, "/limits")["limits"]
    eventually(lambda: counted(daemon, *REFUSED).get(("/l",)) == refused["violations"])
    before = counted(daemon, *REQUESTS)
    starts = counted(daemon, "gateway_worker_starts_total", "worker")
    killed = workers(daemon)[1]["process"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in [row["process"] for row in workers(daemon)] and len(workers(daemon)) == WORKERS)
    # A page may be a second old.
    eventually(lambda: counted(daemon, "gateway_worker_deaths_total", "worker") == {("1",): 1})
    assert counted(daemon, "gateway_worker_starts_total", "worker") == {**starts, ("1",): 2}
    after = counted(daemon, *REQUESTS)
    assert all(after[series] >= count for series, count in before.items())
    (limit,) = asked(daemon, "/limits")["limits"]
    assert limit["violations"] >= refused["violations"] > 0
