"""Several workers share the connections of clients, and what is said of them holds for the machine."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from support.client import Client, encode
from support.daemon import LOOPBACK, Daemon, gateway
from support.services import Service
from support.waiting import eventually

from .conftest import Start

ALL = [{"path": "/*", "service": "main"}]
ESTABLISHED = "01"


def workers(daemon: Daemon) -> list[int]:
    pid = daemon.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def connections(daemon: Daemon) -> list[int]:
    """How many connections of clients each worker has, as Linux tells (proc_pid_net(5), proc_pid_fd(5))."""
    port = f":{daemon.address[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(port) and line[3] == ESTABLISHED}
    return [
        sum(os.readlink(file) in ours for file in list(Path(f"/proc/{pid}/fd").iterdir()) if file.is_symlink())
        for pid in workers(daemon)
    ]


def test_workers_have_as_many_connections_each(start: Start, module_service: Service) -> None:
    """The busiest of 4 has at most a quarter more than the mean. One that is stopped gets no more."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, workers=4))
    eventually(lambda: len(daemon.status()["workers"]) == 4)
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(32)]
        for client in clients:
            assert client.get("/a").status == 200
        counts = connections(daemon)
        assert sum(counts) == 32
        assert max(counts) <= 10
        stopped = workers(daemon)[1]
        os.kill(stopped, signal.SIGSTOP)
        # All at once: in five seconds it would be ended.
        more = [stack.enter_context(daemon.connect()).send(encode("GET", "/a")) for _ in range(20)]
        assert [client.answer().status for client in more] == [200] * 20
        counts_then = connections(daemon)
        os.kill(stopped, signal.SIGCONT)
        assert counts_then[1] == counts[1]


def test_the_most_connections_are_those_of_all_workers(start: Start, module_service: Service) -> None:
    """One more than there may be takes the place of an idle one, of the worker that accepts it."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, workers=2, max_connections=10))
    # A worker that comes when the other has all connections has none of its own to close (docs/explanation/workers.md).
    eventually(lambda: [row["answers"] for row in daemon.status()["workers"]] == [True, True])
    with ExitStack() as stack:
        for _ in range(20):
            assert stack.enter_context(daemon.connect()).get("/a").status == 200
        eventually(lambda: sum(connections(daemon)) <= 10)


def test_the_most_connections_of_an_address_are_those_of_all_workers(start: Start, module_service: Service) -> None:
    """Whichever worker accepts them: no more than that may be of one client."""
    listen = [{"endpoint": LOOPBACK, "proxy_protocol": True}]
    document = gateway(services={"main": module_service.url}, routes=ALL, listen=listen, workers=2)
    document["gateway"]["max_connections_per_address"] = 3
    daemon = start(document)
    with ExitStack() as stack:
        for number in range(6):
            client = stack.enter_context(socket.create_connection(daemon.address, 10))
            client.sendall(b"PROXY TCP4 203.0.113.1 192.0.2.1 5120 80\r\nGET /a HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert (b"HTTP/1.1 200 " in answer(client)) == (number < 3)


def answer(client: socket.socket) -> bytes:
    """The beginning of what comes, if anything."""
    with suppress(ConnectionError):
        return client.recv(1000)
    return b""


def test_who_waits_while_the_gateway_ends_is_served(start: Start, module_service: Service) -> None:
    """The last worker to leave accepts what is queued."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL, workers=2))
    daemon.status()  # asked through the master, which runs by then
    for pid in workers(daemon):
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon.address)) for _ in range(6)]
        for client in clients:
            client.send(b"GET /a HTTP/1.1\r\nHost: any.test\r\n\r\n")
        daemon.terminate()
        for pid in workers(daemon):
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            assert client.answer().status == 200
        assert daemon.wait() == 0
    with socket.socket() as late:
        assert late.connect_ex(daemon.address)
