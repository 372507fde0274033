"""A listening socket that a service manager holds: a restart refuses nobody."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.client import Client
from support.daemon import TWISTD, gateway
from support.services import Service
from support.waiting import PATIENCE

PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="apigw.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does for a service with a socket unit: sd_listen_fds(3)."""


@contextmanager
def passed(listening: socket.socket, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon, which has been passed the socket."""
    number = listening.fileno()
    daemon = [TWISTD, "-n", "--pidfile=", "apigw", "--config", str(directory)]
    with subprocess.Popen(
        [sys.executable, "-c", PASS, str(number), *daemon], cwd="/", pass_fds=[number], stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("domain", "workers", "end"),
    [("INET", 1, signal.SIGTERM), ("UNIX", 1, signal.SIGTERM), ("INET", 2, signal.SIGKILL)],
    ids=["INET", "UNIX", "a master that is killed"],
)
def test_a_restart_refuses_nobody(
    tmp_path: Path, service: Service, domain: str, workers: int, end: signal.Signals
) -> None:
    """Who connects while no gateway runs is served by the next one. A unix socket keeps its file, and its mode."""
    listen = {"listen": [f"systemd:domain={domain}:index=0"], "admin": None, "workers": workers}
    document = gateway(services={"main": service.url}, routes=[{"path": "/a", "service": "main"}], **listen)
    (tmp_path / "gateway.yaml").write_text(json.dumps(document))
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_INET if domain == "INET" else socket.AF_UNIX) as listening:
        listening.bind(("127.0.0.1", 0) if domain == "INET" else str(path))
        listening.listen(100)
        if domain == "UNIX":
            path.chmod(0o600)
        with passed(listening, tmp_path) as first:
            with Client(listening.getsockname()) as client:
                assert client.get("/a").status == 200
            first.send_signal(end)
            assert first.wait(PATIENCE) == (0 if end == signal.SIGTERM else -end)
        with Client(listening.getsockname()) as client, passed(listening, tmp_path):
            assert client.get("/a").status == 200
            if domain == "UNIX":
                assert path.stat().st_mode & 0o777 == 0o600
