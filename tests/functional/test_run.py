"""``make run``: what a newcomer sees first."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("PORT", "TLS_PORT", "ADMIN_PORT", "USERS_PORT", "LIVE_PORT")


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Running:
    def __init__(self, directory: Path, program: Path = ROOT / "contrib/run.py") -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self.log = directory / "log"
        environ = {**os.environ, **{name: str(port) for name, port in self.ports.items()}, "RUN_DIR": str(directory)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(program)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while "Ctrl-C" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def url(self, path: str, port: str = "PORT", scheme: str = "http") -> str:
        return f"{scheme}://localhost:{self.ports[port]}{path}"

    def get(self, path: str, port: str = "PORT") -> object:
        with urlopen(self.url(path, port).replace("localhost", "127.0.0.1"), timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    run = Running(tmp_path_factory.mktemp("run"))
    yield run
    run.stop()


def test_requests_flow(running: Running) -> None:
    """The first command of the README works, and the first request does not."""
    assert running.get("/api/v1/users/1") == {"id": 1, "name": "Ada"}
    echo = running.get("/echo/hello?x=1")
    assert isinstance(echo, dict)
    assert echo["request"] == "GET /echo/hello?x=1 HTTP/1.1"
    assert echo["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert running.get("/ready", "ADMIN_PORT") == {"status": "ready", "checks": {"users": "ok"}}


def test_tls_with_the_certificate_that_was_made(running: Running) -> None:
    """The printed line for TLS fails, or needs ``--insecure``."""
    trust = ssl.create_default_context(cafile=str(running.directory / "tls.pem"))
    with urlopen(running.url("/api/v1/users/2", "TLS_PORT", "https"), timeout=10, context=trust) as answer:
        assert json.load(answer)["name"] == "Grace"
    assert (running.directory / "tls.key").stat().st_mode & 0o77 == 0


def test_the_printed_lines_get_a_token_and_use_it(running: Running) -> None:
    """The lines about tokens do not work as they are printed, or what they need can be read by everybody."""
    printed = [line.partition("  #")[0].strip() for line in running.log.read_text().splitlines()]
    get, *uses = [line for line in printed if "TOKEN" in line]
    said = [
        subprocess.run(["bash", "-c", f"{get}\n{use}"], capture_output=True, text=True, timeout=30, cwd=ROOT).stdout
        for use in uses
    ]
    assert "HTTP/1.1 200" in said[0] and "Ada" in said[0]
    echoed = json.loads(said[1])["headers"]
    assert (echoed["x-user-id"], echoed["x-user-roles"], echoed["x-auth-provider"]) == ("partner", "partner", "oauth")
    for name in ("token.key", "partner.secret"):
        assert (running.directory / name).stat().st_mode & 0o77 == 0
    secret = (running.directory / "partner.secret").read_text()
    assert secret not in running.log.read_text()
    with pytest.raises(HTTPError, match="401"):
        running.get("/partner/users")


def test_events_arrive_one_by_one(running: Running) -> None:
    """An event stream is held back until there is enough of it."""
    with urlopen(running.url("/live/clock").replace("localhost", "127.0.0.1"), timeout=10) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert [stream.readline() for _ in range(2)] == [b"id: 1\n", b"event: tick\n"]


def test_websocket_echoes(running: Running) -> None:
    """The printed line for WebSockets fails."""
    command = [sys.executable, str(ROOT / "contrib/sample/say.py"), running.url("/live/echo", scheme="ws"), "hello"]
    said = subprocess.run(
        [part.replace("localhost", "127.0.0.1") for part in command], capture_output=True, text=True, timeout=30
    )
    assert (said.stdout, said.stderr) == ("hello\n", "")


def test_every_printed_line_is_for_these_ports(running: Running) -> None:
    """What is printed asks somebody else's ports."""
    printed = running.log.read_text()
    assert f"http://127.0.0.1:{running.ports['PORT']}/api/v1/users" in printed
    assert f"apigw reload --admin http://127.0.0.1:{running.ports['ADMIN_PORT']}\n" in printed


def test_a_port_that_is_taken_is_named(running: Running) -> None:
    """A port is in use, and the user sees a traceback, or the wrong service."""
    environ = {**os.environ, **{name: str(port) for name, port in running.ports.items()}}
    second = subprocess.run([sys.executable, str(ROOT / "contrib/run.py")], env=environ, capture_output=True, text=True)
    port = running.ports["PORT"]
    assert second.returncode == 1
    assert second.stderr == (
        f"make run: port {port} cannot be used (Address already in use); take another one: make run PORT={port + 1}\n"
    )


def test_ctrl_c_leaves_nothing_running(running: Running) -> None:
    """Ctrl-C leaves a service behind, which holds its port until somebody finds it."""
    with urlopen(running.url("/live/clock").replace("localhost", "127.0.0.1"), timeout=10):
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0, running.log.read_text()
    assert not (running.directory / "apigw.pid").exists()
    assert "Traceback" not in running.log.read_text()
    for port in running.ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
