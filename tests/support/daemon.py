"""``twistd apigw`` as an operator runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from support.client import Address, Answer, Client
from support.fork_server import Forked, ForkServer
from support.waiting import PATIENCE, eventually

TWISTD = shutil.which("twistd", path=os.path.dirname(sys.executable)) or "twistd"
MEASURED = "COVERAGE_PROCESS_CONFIG" in os.environ
"""Whether coverage is measured, in what the tests start too."""
LOOPBACK = "tcp:0:interface=127.0.0.1"
WORKERS = {"workers": int(os.environ["APIGW_TEST_WORKERS"])} if os.environ.get("APIGW_TEST_WORKERS") else {}
"""What every gateway is given that does not say itself how many it has."""

Document = dict[str, Any]


def gateway(*, services: Mapping[str, Any], routes: Iterable[Any], **settings: Any) -> Document:
    """A configuration. A service that is only a URL, or a list of them, is written out.

    Services fail in tests all the time: they have no circuit unless a test says so.
    """
    listen: Document = {"listen": [LOOPBACK], "admin": LOOPBACK, "access_log": None, **WORKERS, **settings}
    written = {}
    for name, service in services.items():
        urls = [service] if isinstance(service, str) else service
        written[name] = {"circuit_breaker": None, **({"targets": urls} if isinstance(urls, list) else urls)}
    return {"gateway": listen, "services": written, "routes": list(routes)}


class Daemon:
    """One process, from ``start`` to ``wait``. Its log, and what it says on stderr, is in ``log``.

    It is forked (``fork_server``), and so is what reads its configuration anew. ``executed`` is for who looks at the
    command and the environment of the process, and for an environment in which Python imports something else.
    """

    def __init__(
        self, directory: Path, document: Document | None = None, *arguments: str, executed: bool = False
    ) -> None:
        self.directory = directory
        self.arguments = arguments
        self._executed = executed or MEASURED
        self.process: subprocess.Popen[bytes] | Forked
        self.log_file = directory / "twistd.log"
        self._document: Document = {}
        self._has_admin = True
        if document is not None:
            self.configure(document)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def configure(self, document: Document) -> None:
        """Write the configuration, at once as an editor does."""
        self._document = document
        self.directory.mkdir(exist_ok=True)
        new = self.directory / "gateway.yaml.new"
        new.write_text(json.dumps(document))
        new.replace(self.directory / "gateway.yaml")

    @property
    def command(self) -> list[str]:
        return [TWISTD, "-n", "--pidfile=", "apigw", "--config", str(self.directory), *self.arguments]

    def launch(self, environ: Mapping[str, str] | None = None) -> Daemon:
        """Start, by execution, and wait for nothing."""
        self._is_not_running()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd="/",
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environ or {})},
            )
        return self

    def start(self, environ: Mapping[str, str] | None = None) -> Daemon:
        """Start, and wait until it serves. ``environ`` is added to that of this process."""
        if not self._executed:
            assert not {"PYTHONPATH", "LD_PRELOAD"} & set(environ or ()), "a forked process has read these already"
            self._is_not_running()
            self.process = Forked(_fork_server(), self.command, str(self.log_file), environ or {})
        else:
            self.launch(environ)
        settings = self._document["gateway"]
        self._has_admin = settings["admin"] is not None
        expected = len(settings["listen"]) + self._has_admin

        def listens() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            return len(list(self._listening())) == expected

        eventually(listens)
        # Once it answers, the reactor runs, and with it the handlers of signals.
        eventually(self._answers)
        return self

    def _is_not_running(self) -> None:
        assert not hasattr(self, "process") or self.process.poll() is not None, "it runs already"

    def _answers(self) -> bool:
        first = next(self._listening())
        with Client(first if first.startswith("/") else _address(first)) as client:
            return client.get("/health").status == 200

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def _listening(self) -> Iterator[str]:
        return (match[1] for match in re.finditer(r"\] listening on (\S+): ", self.log))

    @property
    def admin_text(self) -> str:
        return next(self._listening())

    @property
    def admin(self) -> Address:
        return _address(self.admin_text)

    @property
    def addresses(self) -> list[Address]:
        """Of the public listeners that have a port."""
        return [_address(text) for text in list(self._listening())[self._has_admin :] if not text.startswith("/")]

    @property
    def address(self) -> Address:
        return self.addresses[0]

    def connect(self) -> Client:
        return Client(self.address)

    def request(self, method: str, target: str, *headers: str, body: bytes = b"") -> Answer:
        """On a connection of its own."""
        with self.connect() as client:
            return client.request(method, target, *headers, body=body)

    def get(self, target: str, *headers: str) -> Answer:
        return self.request("GET", target, *headers)

    def status(self) -> Document:
        """What the admin listener says of the process; it says 503 while no worker has time for it."""
        with Client(self.admin) as client:
            answer = client.get("/status")
        assert answer.status == 200, answer
        document: Document = answer.json
        return document

    def is_quiet(self) -> bool:
        """Whether no exchange is in flight, as the process itself knows."""
        return self.status()["in_flight"] == 0

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def reload(self, document: Document | None = None) -> bool:
        """SIGHUP; whether the new configuration was taken, by the daemon's own word."""
        if document is not None:
            self.configure(document)
        before = self._reloads()
        self.signal(signal.SIGHUP)
        # A process starts for it, which takes no core from another as long as one is free.
        eventually(lambda: self._reloads() != before, 3 * PATIENCE)
        if self._reloads()[0] > before[0]:
            return True
        eventually(self._answers)  # when it does, it has told all problems
        return False

    def _reloads(self) -> tuple[int, int]:
        log = self.log
        return log.count("configuration reloaded: "), log.count("] not reloaded: ")

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code."""
        return self.process.wait(patience)

    def kill(self) -> None:
        """The end of a test."""
        with suppress(ProcessLookupError, AttributeError):
            if MEASURED:
                self._end_by_itself()
            self.process.kill()
            self.process.wait()

    def _end_by_itself(self) -> None:
        """So that it writes what of the program it has run. The second signal ends what is in flight."""
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                self.terminate()
                self.wait(0.5)
                return

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@cache
def _fork_server() -> ForkServer:
    return ForkServer(TWISTD)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
