"""Daemons of tests, forked from a process that has imported the program: they start in a fifth of the CPU.

What a process does from its first instruction on is ``Daemon.launch``'s to show, which executes ``twistd``.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


class Forked:
    """A process, as ``subprocess.Popen`` has it."""

    def __init__(self, server: ForkServer, command: Sequence[str], output: str) -> None:
        self._server = server
        self.returncode: int | None = None
        self.pid: int = server.ask(["start", list(command), dict(os.environ), output])

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask(["ended", self.pid])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                select.select([descriptor], [], [], timeout)
            finally:
                os.close(descriptor)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks them; it ends with this one. ``script`` is that of ``twistd``."""

    def __init__(self, script: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(number), script],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[number],
        )
        theirs.close()
        atexit.register(self._end)

    def ask(self, what: list[Any]) -> Any:
        self._socket.send(json.dumps(what).encode())
        return json.loads(self._socket.recv(1 << 20))

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()


def _serve(requests: socket.socket) -> tuple[list[str], dict[str, str]] | None:
    """Answers requests. Returns None at the end, and in each child what it is to execute."""
    while True:
        request = requests.recv(1 << 20)
        if not request:
            return None
        kind, *given = json.loads(request)
        if kind == "ended":
            pid, status = os.waitpid(given[0], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            command, environ, output = given
            answer = os.fork()
            if not answer:
                requests.close()
                log = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                for number in (1, 2):
                    os.dup2(log, number)
                os.close(log)
                return command, environ
        requests.send(json.dumps(answer).encode())


def _main(number: int, script: str) -> None:
    sys.path[0] = os.path.dirname(script)
    from twisted.scripts.twistd import run

    import apigw.config.load
    import apigw.process.program
    import apigw.process.workers
    import apigw.tap  # noqa: F401

    assert "twisted.internet.reactor" not in sys.modules
    gc.collect()
    gc.freeze()
    started = _serve(socket.socket(fileno=number))
    if started is None:
        return
    command, environ = started
    sys.argv = command
    sys.orig_argv = [sys.executable, *command]
    os.environ.clear()
    os.environ.update(environ)
    sys.exit(run())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _main(int(sys.argv[1]), sys.argv[2])
