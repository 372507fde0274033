"""Processes that share a listening socket, as the workers of a gateway do.

Run as a program, it forks them, and obeys lines on its standard input: ``counts`` prints the connections of each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import LoopingCall

from apigw.process.listeners import Counts
from apigw.shared.page import Page
from apigw.shared.slots import CONNECTIONS, READY, TICK
from apigw.wire.reactor.epoll import _make
from apigw.wire.reactor.gate import Gate, bell
from apigw.wire.reactor.ports import serve


@frozen
class Sharing:
    """Processes that share the socket at ``address``. ``pids`` in the order of their slots."""

    program: subprocess.Popen[str]
    address: tuple[str, int]
    pids: list[int]

    def counts(self) -> list[int]:
        """The connections of each process."""
        assert self.program.stdin
        assert self.program.stdout
        self.program.stdin.write("counts\n")
        self.program.stdin.flush()
        counts: list[int] = json.loads(self.program.stdout.readline())
        return counts


@contextmanager
def sharing(processes: int, sluggish: bool = False) -> Iterator[Sharing]:
    """That many processes. ``sluggish``: one that misses its ticks is taken to be alive for long."""
    command = [sys.executable, __file__, str(processes), *(["sluggish"] if sluggish else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        told: dict[str, Any] = json.loads(program.stdout.readline())
        try:
            yield Sharing(program, (told["host"], told["port"]), told["pids"])
        finally:
            for pid in told["pids"]:
                os.kill(pid, signal.SIGKILL)
            program.kill()


def main() -> None:
    number, ahead = int(sys.argv[1]), 10**9 if sys.argv[2:] else 0
    page = Page.make(number, 1 << 16)
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    shared_bell = bell()
    ready, say_ready = os.pipe()
    pids = []
    for worker in range(number):
        pid = os.fork()
        if not pid:
            os.close(0)
            work(page, worker, listening, shared_bell, ahead, lambda: os.write(say_ready, b"r"))
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(ready, 1)
    host, port = listening.getsockname()
    print(json.dumps({"host": host, "port": port, "pids": pids}), flush=True)
    for _ in sys.stdin:
        print(json.dumps([page.slots.get(worker, CONNECTIONS) for worker in range(number)]), flush=True)


def work(
    page: Page,
    worker: int,
    listening: socket.socket,
    shared_bell: int,
    ahead: int,
    say_ready: Callable[[], object],
) -> None:
    """One of the processes: it answers each piece that it receives with a byte. Its ticks are ``ahead`` of the time."""
    reactor: Any = _make()
    page.become(worker, os.getpid())
    gate = Gate(reactor, Counts(page.slots, worker, time.monotonic), shared_bell)
    clients: set[Protocol] = set()

    class Client(Protocol):
        def connectionMade(self) -> None:
            clients.add(self)
            gate.count(len(clients))

        def dataReceived(self, data: bytes) -> None:
            assert self.transport
            self.transport.write(b"x")

        def connectionLost(self, reason: object = None) -> None:
            clients.discard(self)
            gate.count(len(clients))

    ticking = LoopingCall(lambda: page.slots.put(worker, TICK, int(time.monotonic() * 1000) + ahead))
    ticking.clock = reactor
    ticking.start(1.0)
    serve(reactor, listening, ServerFactory.forProtocol(Client), gate)
    page.slots.put(worker, READY, 1)
    reactor.callWhenRunning(say_ready)
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
