"""Targets that come and go in DNS while a daemon serves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from support.daemon import Daemon, gateway
from support.dns_server import Apart
from support.services import Received, Service
from support.waiting import eventually

from .conftest import check_log

NAME = "_orders._tcp.test"
SITECUSTOMIZE = """
from apigw.upstream import name_servers, names

name_servers.settings_in = lambda text: name_servers.Settings((("127.0.0.1", {port}),), timeout=1.0, attempts=1)
names.LEAST_TTL = 0.1
"""


class Scene:
    """Four services, of which those in ``listed`` have SRV records, and a gateway with two workers."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.dns = Apart()
        stack.callback(self.dns.close)
        self.services = [Service() for _ in range(4)]
        for service in self.services:
            stack.callback(service.close)
        self.dns.zone.addresses("here.test", "127.0.0.1", ttl=0)
        self.list(0)
        (directory / "sitecustomize.py").write_text(SITECUSTOMIZE.format(port=self.dns.port))
        target = {"srv": f"http://{NAME}", "allow_local": True}
        document = gateway(
            services={"main": {"targets": [target], "balance": "least_requests"}},
            routes=[{"path": "/*", "service": "main"}],
            workers=2,
        )
        self.daemon = Daemon(directory / "gateway", document, executed=True)
        stack.callback(self.daemon.kill)
        path = os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))
        self.daemon.start({"PYTHONPATH": path})
        stack.callback(check_log, self.daemon)

    def list(self, *numbers: int) -> None:
        self.dns.zone.services(NAME, *((1, 1, self.services[number].port, "here.test") for number in numbers), ttl=0)

    def served_by(self, requests: int = 20) -> set[int]:
        """Who answers requests."""
        for service in self.services:
            service.requests.clear()
        assert {self.daemon.get("/a").status for _ in range(requests)} == {200}
        return {number for number, service in enumerate(self.services) if service.requests}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def test_requests_follow_the_records_of_a_name(scene: Scene) -> None:
    """Without a reload, in all workers; the one in flight with a target that goes is answered."""
    assert scene.served_by() == {0}
    held = threading.Event()
    seen = threading.Event()

    def behave(received: Received) -> None:
        if received.target == "/held":
            seen.set()
            held.wait(10)
        received.conversation.answer(200, body=b"{}")

    scene.services[0].behave = behave
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(scene.daemon.get("/held").status))
    asking.start()
    assert seen.wait(10)
    scene.list(1, 2)
    eventually(lambda: scene.served_by() == {1, 2})
    assert statuses == []
    held.set()
    asking.join()
    assert statuses == [200]


def test_no_request_fails_while_the_set_of_targets_changes_ten_times_a_second(scene: Scene) -> None:
    turns = count()
    changes = 0

    def before() -> None:
        nonlocal changes
        turn = next(turns)
        scene.list(turn % 4, (turn + 1) % 4)
        changes += 1

    scene.dns.before = before
    ends = time.monotonic() + 1.5
    statuses: list[int] = []
    while time.monotonic() < ends:
        statuses.append(scene.daemon.get("/a").status)
    assert set(statuses) == {200}
    assert changes > 10
