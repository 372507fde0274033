"""256 clients of each slow kind at the default configuration: another client's request is answered, memory is bounded.

As many as ``max_connections`` of a service, so that the last would get nothing if they held on to what they take.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.certificates import Authority
from support.client import HANDSHAKE, Client, encode
from support.daemon import LOOPBACK, Daemon, gateway
from support.h2_client import H2Client
from support.services import SWITCH, Received, Service, echo
from support.waiting import eventually

from .conftest import Start

CROWD = 256
SOON = 5.0
MOST_GROWTH = 96 * 1024 * 1024
LARGE = b"x" * 16_000_000
PLAIN, SECURE = range(2)


@pytest.fixture
def daemon(start: Start, module_service: Service, tmp_path: Path) -> Daemon:
    own = Authority(tmp_path).issue("localhost")
    tls = {"endpoint": LOOPBACK, "tls": {"certificates": [{"cert_file": own.certificate, "key_file": own.key}]}}
    routes = [{"path": "/*", "service": "main"}]
    document = gateway(services={"main": module_service.url}, routes=routes, listen=[LOOPBACK, tls])
    daemon = start(document)
    assert daemon.get("/warm").status == 200
    return daemon


def resident(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def uploads(daemon: Daemon) -> list[Client | H2Client]:
    """Each has sent the first piece of a body that it does not go on with."""
    clients = [daemon.connect() for _ in range(CROWD)]
    for client in clients:
        client.send(encode("POST", "/upload", "Content-Length: 100000"))
        client.send("x")
    return [*clients]


def small_uploads(daemon: Daemon) -> list[Client | H2Client]:
    clients = [daemon.connect() for _ in range(CROWD)]
    for client in clients:
        client.send(encode("POST", "/upload", "Content-Length: 60000"))
        client.send("x" * 30_000)
    return [*clients]


def readers(daemon: Daemon) -> list[Client | H2Client]:
    """Each has asked for more than the kernels' buffers take, and reads nothing."""
    clients = [daemon.connect() for _ in range(CROWD)]
    for client in clients:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(encode("GET", "/large"))
    eventually(lambda: daemon.status()["in_flight"] > CROWD // 2)
    return [*clients]


def websockets(daemon: Daemon) -> list[Client | H2Client]:
    clients = [daemon.connect() for _ in range(CROWD)]
    for client in clients:
        assert client.send(encode("GET", "/socket", *HANDSHAKE)).head().status == 101
    return [*clients]


def streams(daemon: Daemon) -> list[Client | H2Client]:
    """Uploads and downloads, on three connections."""
    clients = [H2Client(daemon.address) for _ in range(3)]
    for client in clients:
        for number in range(CROWD // len(clients) // 2):
            client.begin("GET", f"/large/{number}")
            client.send(client.begin("POST", f"/upload/{number}", ("content-length", "100000"), end=False), b"x")
    return [*clients]


def handshakes(daemon: Daemon) -> list[Client | H2Client]:
    """Each has begun to speak TLS."""
    clients = [Client(daemon.addresses[SECURE]) for _ in range(CROWD)]
    for client in clients:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40)
    return [*clients]


def refusals(daemon: Daemon) -> list[Client | H2Client]:
    """Each sends a thousand requests that no route answers, and reads nothing."""
    clients = [daemon.connect() for _ in range(CROWD)]
    for client in clients:
        client.socket.setblocking(False)
        with suppress(BlockingIOError):
            client.socket.send(encode("GET", "/health/none") * 1000)
    return [*clients]


def behave(received: Received) -> None:
    conversation = received.conversation
    kind = received.target.split("/")[1]
    if kind == "large":
        conversation.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(LARGE)}\r\n\r\n".encode())
        conversation.send(LARGE)  # itself, and no copy for each
    elif kind == "socket":
        conversation.send(SWITCH)
        conversation.wait_for_end()
    else:
        echo(received)


def served(daemon: Daemon) -> float:
    """How long another client waits for its answer."""
    began = time.monotonic()
    assert daemon.get("/mine").status == 200
    return time.monotonic() - began


@pytest.mark.parametrize(
    "crowd",
    [uploads, small_uploads, readers, websockets, streams, handshakes, refusals],
    ids=lambda kind: kind.__name__,
)
def test_a_crowd_takes_nothing_from_others(
    daemon: Daemon, service: Service, crowd: Callable[[Daemon], list[Client | H2Client]]
) -> None:
    """While 256 are there, whoever comes next is answered soon."""
    service.behave = behave
    before = resident(daemon)
    with ExitStack() as stack:
        for client in crowd(daemon):
            stack.enter_context(client)
        eventually(lambda: daemon.status()["connections"] >= 3)
        # While the crowd arrives, this process serves it: 256 MB of answers, in as many threads.
        eventually(lambda: served(daemon) < SOON)
        for _ in range(5):
            assert served(daemon) < SOON
        assert resident(daemon) - before < MOST_GROWTH
