"""A name server that hangs: it holds up nobody but who needs its names, and those no longer than they may wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.client import Client, encode
from support.daemon import Daemon, gateway
from support.services import Service
from support.waiting import eventually

from .conftest import check_log

SITECUSTOMIZE = """
import os, socket, time

real = socket.getaddrinfo

def getaddrinfo(host, port, *arguments, **named):
    if isinstance(host, str) and host.endswith(".test"):
        if host.startswith("hangs") or (host.startswith("may-hang") and os.path.exists({file!r})):
            time.sleep(60)
        host = "127.0.0.1"
    return real(host, port, *arguments, **named)

socket.getaddrinfo = getaddrinfo
"""

HANGING = 20
"""Twice the threads of a reactor's own pool."""


@pytest.fixture(scope="module")
def hang(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While it exists, names that may hang do."""
    return tmp_path_factory.mktemp("names") / "hang"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, module_service: Service, hang: Path) -> Iterator[Daemon]:
    port = module_service.url.rpartition(":")[2]
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE.format(file=str(hang)))
    names = [*(f"hangs{number}" for number in range(HANGING)), "may-hang", "well"]
    services = {name: {"targets": [f"http://{name}.test:{port}"], "connect_timeout": "1s"} for name in names}
    document = gateway(services=services, routes=[{"path": f"/{name}/*", "service": name} for name in names])
    daemon = Daemon(tmp_path_factory.mktemp("gateway"), document, executed=True)
    try:
        yield daemon.start({"PYTHONPATH": str(site)})
        check_log(daemon)
    finally:
        daemon.kill()


@pytest.fixture
def hanging(daemon: Daemon, service: Service) -> Iterator[None]:
    """Clients wait for every name that hangs."""
    with ExitStack() as stack:
        for number in range(HANGING):
            client = stack.enter_context(daemon.connect())
            client.send(encode("GET", f"/hangs{number}/a"))
        eventually(lambda: daemon.status()["in_flight"] == HANGING)
        yield


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return what(), time.monotonic() - began


def test_a_name_that_hangs_is_a_502_in_time(daemon: Daemon, service: Service) -> None:
    """``connect_timeout`` is for all that a connection needs, the lookup included."""
    answer, seconds = timed(lambda: daemon.get("/hangs0/a"))
    assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert 0.9 < seconds < 3


def test_it_holds_up_nothing_else(daemon: Daemon, service: Service, hanging: None) -> None:
    """Other names, the metrics and a reload go on while it hangs."""
    with Client(daemon.admin) as admin:
        assert daemon.get("/well/a").status == 200
        assert admin.get("/metrics").status == 200
    assert daemon.reload()


def test_the_last_good_addresses_serve_meanwhile(daemon: Daemon, service: Service, hang: Path) -> None:
    """A name server that fails takes nothing down that worked."""
    assert daemon.get("/may-hang/a").status == 200
    service.close_connections()
    hang.touch()
    for _ in range(2):
        answer, seconds = timed(lambda: daemon.get("/may-hang/a"))
        assert answer.status == 200
        assert seconds < 0.9
        service.close_connections()
    with Client(daemon.admin) as admin:
        eventually(lambda: b"gateway_dns_old_answers_total 2.0" in admin.get("/metrics").body)


def test_it_does_not_hold_up_the_end(daemon: Daemon, service: Service) -> None:
    daemon.terminate()
    code, seconds = timed(daemon.wait)
    assert code == 0
    assert seconds < 5
