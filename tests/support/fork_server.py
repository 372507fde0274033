"""Daemons of tests, forked from a process that has imported the program: they start in a fifth of the CPU.

So do the processes that read a new configuration for them. A daemon executes ``LAUNCHER``, which hands its pipes and
its environment to such a process, and ends as that does. What a process does from its first instruction on is
``Daemon(executed=True)``'s to show: that executes ``twistd``, and Python for each reload.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

LAUNCHER = """#!{python} -IS
import _socket, array, os
door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
door.connect({door!r})
environ = b"\\0".join(b"=".join(pair) for pair in os.environb.items())
door.sendmsg([environ], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
code = int(door.recv(16) or -9)
code < 0 and os.kill(os.getpid(), -code)
os._exit(code)
"""


class Forked:
    """A process, as ``subprocess.Popen`` has it."""

    def __init__(self, server: ForkServer, command: Sequence[str], output: str, environ: Mapping[str, str]) -> None:
        """``environ`` is added to that of this process."""
        self._server = server
        self.returncode: int | None = None
        self.pid: int = server.ask(["start", list(command), {**os.environ, **environ}, output])

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
        self._directory = TemporaryDirectory()
        door, launcher = f"{self._directory.name}/door", Path(self._directory.name, "read")
        launcher.write_text(LAUNCHER.format(python=sys.executable, door=door))
        launcher.chmod(0o700)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(number), script, door, launcher],
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
        self._directory.cleanup()


def _serve(requests: socket.socket, door: socket.socket) -> Callable[[], object] | None:
    """Answers requests, and whoever knocks. Returns None at the end, and in each child what it is to do."""
    readers: list[int] = []
    while True:
        ready, _, _ = select.select([requests, door], [], [])
        readers = [each for each in readers if os.waitpid(each, os.WNOHANG) == (0, 0)]
        if door in ready:
            asked, _ = door.accept()
            readers.append(os.fork())
            if not readers[-1]:
                requests.close()
                door.close()
                return _reader(asked)
            asked.close()
        if requests not in ready:
            continue
        request = requests.recv(1 << 20)
        if not request:
            return None
        kind, *given = json.loads(request)
        if kind == "ended":
            pid, status = os.waitpid(given[0], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                requests.close()
                door.close()
                return partial(_be_daemon, *given)
        requests.send(json.dumps(answer).encode())


def _be_daemon(command: list[str], environ: dict[str, str], output: str) -> None:
    log = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    sys.argv = command
    sys.orig_argv = [sys.executable, *command]
    os.environ.clear()
    os.environ.update(environ)
    from twisted.scripts.twistd import run

    sys.exit(run())


def _reader(asked: socket.socket) -> Callable[[], object]:
    """Forks it. The parent waits until it ends, or who has asked does, and ends."""
    environ, pipes, _, _ = socket.recv_fds(asked, 1 << 20, 3)
    reader = os.fork()
    if not reader:
        asked.close()
        return partial(_be_reader, environ, pipes)
    for pipe in pipes:
        os.close(pipe)
    process = os.pidfd_open(reader)
    if process not in select.select([process, asked.fileno()], [], [])[0]:
        os.kill(reader, signal.SIGKILL)
    _, status = os.waitpid(reader, 0)
    with suppress(OSError):
        asked.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _be_reader(environ: bytes, pipes: list[int]) -> None:
    for number, pipe in enumerate(pipes):
        os.dup2(pipe, number)
        os.close(pipe)
    os.environb.clear()
    for pair in environ.split(b"\0"):
        name, _, os.environb[name] = pair.partition(b"=")
    from apigw.process.reader import main

    told = json.load(sys.stdin)
    sys.path[:] = told["path"]
    main(told)


def _main(number: int, script: str, place: str, launcher: str) -> None:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(place)
    door.listen()
    sys.path[0] = os.path.dirname(script)
    import twisted.scripts.twistd  # noqa: F401

    import apigw.config.load
    import apigw.process.program
    import apigw.process.reader
    import apigw.process.workers
    import apigw.tap  # noqa: F401
    from apigw.process.reading import PATIENCE, Reading

    assert "twisted.internet.reactor" not in sys.modules
    Reading.__init__.__defaults__ = (PATIENCE, launcher)
    gc.collect()
    gc.freeze()
    started = _serve(socket.socket(fileno=number), door)
    if started is not None:
        started()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _main(int(sys.argv[1]), *sys.argv[2:])
