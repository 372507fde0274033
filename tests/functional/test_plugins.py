"""Plugins in a daemon: reloads, workers that die, plugins that block, the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from support import redis_server
from support.client import Client, Truncated
from support.daemon import TWISTD, Daemon, gateway
from support.services import Service
from support.waiting import PATIENCE, eventually

APIGW = str(Path(TWISTD).with_name("apigw"))
CODE = """
import os, time

class Stamp:
    name = "stamp"
    schema = {"value": {"type": "string", "default": "first", "meta": {"doc": "What is set."}}}
    made = 0

    def prepare(self, config, context):
        self.value = config["value"]
        self.count = 0

    def start(self):
        Stamp.made += 1
        self.number = Stamp.made

    def on_request(self, view):
        self.count += 1
        view.request.set("X-Stamp", f"{self.value} {self.number} {self.count}")
        if "block" in view.query:
            time.sleep(0.1)
        if "exit" in view.query:
            os._exit(9)
"""

COUNT = """
class Count:
    name = "count"
    schema = {}

    def prepare(self, config, context):
        self.redis = context.redis

    async def on_request(self, view):
        count = await self.redis.call("INCR", self.redis.key("seen"))
        twice = await self.redis.evaluate("return ARGV[1] * 2", [], count)
        view.request.set("X-Count", f"{count} {twice}")
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def directory_in(folder: Path) -> Path:
    directory = folder / "gateway"
    directory.mkdir()
    (directory / "stamp.py").write_text(CODE)
    return directory


def stamp(service: Service, daemon: Daemon) -> str | None:
    assert daemon.get("/stamped").status == 200
    return service.last.get("x-stamp")


def test_a_reload_keeps_what_has_not_changed(tmp_path: Path, service: Service) -> None:
    """An object with its state; with other settings it is made anew; other code needs more than a reload."""
    directory = directory_in(tmp_path)
    document = gateway(
        services={"main": service.url}, routes=[{"path": "/stamped", "service": "main", "use": ["stamp"]}], workers=1
    )
    document["plugins"] = {"stamp": {"policy": "./stamp.py:Stamp"}}
    with Daemon(directory, document) as daemon:
        assert stamp(service, daemon) == "first 1 1"
        assert daemon.reload({**document, "rate_limits": []})
        assert stamp(service, daemon) == "first 1 2"
        document["plugins"]["stamp"]["with"] = {"value": "second"}
        assert daemon.reload(document)
        assert stamp(service, daemon) == "second 2 1"
        (directory / "other.py").write_text(CODE)
        assert not daemon.reload(
            {**document, "plugins": {**document["plugins"], "other": {"policy": "./other.py:Stamp"}}}
        )
        assert "plugins.other.policy: './other.py:Stamp' is not loaded yet: restart the gateway" in daemon.log
        (directory / "stamp.py").write_text(CODE + "\n")
        assert not daemon.reload(document)
        assert "'./stamp.py:Stamp' has changed on disk since it was loaded" in daemon.log
        assert stamp(service, daemon) == "second 2 2"
        listed = subprocess.run([APIGW, "plugins", str(directory)], capture_output=True, text=True, check=True)
        assert "stamp: ./stamp.py:Stamp\n  used by: route /stamped\n" in listed.stdout
        assert "  methods: prepare, on_request (after_limit)" in listed.stdout
        assert "  with.value: string, default 'first': What is set.\n" in listed.stdout
        explained = subprocess.run(
            [APIGW, "routes", "GET", "/stamped", str(directory)], capture_output=True, text=True, check=True
        )
        assert "plugins: stamp (./stamp.py:Stamp)" in explained.stdout


def test_redis_of_a_plugin(tmp_path: Path, service: Service) -> None:
    """Its keys are its own, and waits for it have the timeout of the configuration in use."""
    directory = directory_in(tmp_path)
    (directory / "count.py").write_text(COUNT)
    routes = [{"path": "/counted", "service": "main", "use": ["count"]}]
    with redis_server.running() as redis:
        document = gateway(services={"main": service.url}, routes=routes, workers=1)
        document["plugins"] = {"count": {"policy": "./count.py:Count", "timeout": "1m"}}
        document["redis"] = {"url": redis.url, "timeout": "10s"}
        with Daemon(directory, document) as daemon:
            for expected in ("1 2", "2 4"):
                assert daemon.get("/counted").status == 200
                assert service.last.get("x-count") == expected
            assert redis("GET", "apigw:plugin:count:seen") == b"2"
            assert daemon.reload({**document, "redis": {"url": redis.url, "timeout": "50ms"}})
            redis.pause()
            try:
                began = time.monotonic()
                assert daemon.get("/counted").status == 500
                assert time.monotonic() - began < 5
            finally:
                redis.resume()


def with_and_without(service: Service, workers: int) -> dict[str, Any]:
    """Two routes, of which one has the plugin."""
    routes = [
        {"path": "/stamped", "service": "main", "use": ["stamp"]},
        {"path": "/plain", "service": "main"},
    ]
    document = gateway(services={"main": service.url}, routes=routes, workers=workers)
    document["plugins"] = {"stamp": {"policy": "./stamp.py:Stamp"}}
    return document


def test_one_that_blocks_each_second(tmp_path: Path, service: Service) -> None:
    """It is named within a second, each time, and other routes of the same process have no errors."""
    with Daemon(directory_in(tmp_path), with_and_without(service, 1)) as daemon:
        statuses: list[int] = []
        done = Event()

        def others() -> None:
            with daemon.connect() as client:
                while not done.is_set():
                    statuses.append(client.get("/plain").status)

        def named() -> int:
            return daemon.log.count("the plugin stamp has kept all other requests waiting for 1")

        def blocks_again() -> bool:
            assert daemon.get("/stamped?block=1").status == 200
            return named() > 1

        running = Thread(target=others)
        running.start()
        try:
            assert daemon.get("/stamped?block=1").status == 200
            eventually(lambda: named() == 1, 1)
            eventually(blocks_again)
        finally:
            done.set()
            running.join()
        assert statuses == [200] * len(statuses)
        assert len(statuses) > 10


def test_one_that_ends_its_worker(tmp_path: Path, service: Service) -> None:
    """The worker is replaced."""
    with Daemon(directory_in(tmp_path), with_and_without(service, 2)) as daemon:
        with daemon.connect() as client, pytest.raises((Truncated, ConnectionError)):
            client.get("/stamped?exit=1")
        eventually(lambda: daemon.get("/stamped").status == 200)
        with Client(daemon.admin) as client:
            metrics = client.get("/metrics").body.decode()
        assert 'gateway_plugin_blocked_total{plugin="stamp"} 0' in metrics


SLEEPS = """
import time

class Sleeps:
    name = "sleeps"
    schema = {}

    def prepare(self, config, context):
        self.context = context

    def on_request(self, view):
        for _ in range(100):
            self.context.in_thread(time.sleep, 3600).addErrback(lambda _: None)
"""


def test_threads_that_do_not_end(tmp_path: Path, service: Service) -> None:
    """They hold up neither what others do in threads, nor the end of the gateway."""
    directory = directory_in(tmp_path)
    (directory / "sleeps.py").write_text(SLEEPS)
    document = gateway(
        services={"main": service.url}, routes=[{"path": "/a", "service": "main", "use": ["sleeps"]}], workers=1
    )
    document["plugins"] = {"sleeps": {"policy": "./sleeps.py:Sleeps"}}
    with Daemon(directory, document) as daemon:
        assert daemon.get("/a").status == 200
        with Client(daemon.admin) as client:
            assert client.get("/metrics").status == 200
        daemon.terminate()
        assert daemon.wait() == 0


def test_a_new_plugin_has_a_test_that_passes(tmp_path: Path) -> None:
    """As it was made, in memory."""
    made = subprocess.run(
        [APIGW, "new", "plugin", "tenant-header"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert made.stdout.startswith("tenant-header: made tenant_header.py, test_tenant_header.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "apigw.testing.pytest_plugin", "-p", "no:cacheprovider"]
    tested = subprocess.run(
        command, cwd=tmp_path / "tenant-header", capture_output=True, text=True, timeout=4 * PATIENCE
    )
    assert "1 passed" in tested.stdout, tested.stdout
    again = subprocess.run([APIGW, "new", "plugin", "tenant-header"], cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (1, "tenant-header: File exists\n")


READING = """
class Reading:
    name = "reading"
    schema = {}

    async def on_request(self, view):
        if "forget" in view.query:
            view.read_body()
            return
        for _ in range(2):
            try:
                await view.read_body(1000)
            except Exception:
                pass
"""


@pytest.mark.parametrize("how", ["", "?forget"])
@pytest.mark.parametrize("framing", ["Content-Length: 900", "Transfer-Encoding: chunked"])
def test_what_is_left_of_a_body_goes_nowhere(tmp_path: Path, service: Service, framing: str, how: str) -> None:
    """A service that got it would wait for the rest, and take the next request for it."""
    directory = directory_in(tmp_path)
    (directory / "reading.py").write_text(READING)
    routes = [{"path": "/read", "service": "main", "use": ["reading"]}, {"path": "/plain", "service": "main"}]
    document = gateway(services={"main": service.url}, routes=routes, workers=1, max_buffered=500)
    document["plugins"] = {"reading": {"policy": "./reading.py:Reading"}}
    with Daemon(directory, document) as daemon:
        before = len(service.requests)
        with daemon.connect() as client:
            client.send(f"POST /read{how} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
            client.send("5dc\r\n" + "x" * 600 if "chunked" in framing else "x" * 600)
            answer = client.answer("POST")
            assert answer.status == 500 and answer.code == "policy_failed"
        assert daemon.get("/plain").status == 200
        assert len(service.requests) == before + 1
