"""The programs that a run compares, as data, and how one is started and stopped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen

from bench.machine import pinned

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
Document = Mapping[str, Any]


@frozen
class Place:
    """Where a program runs: its own directory, the port it listens on, the ports of the origins behind it."""

    directory: Path
    port: int
    origins: tuple[int, ...] = ()


@frozen
class Program:
    """``executable`` must be found for it to run, and ``missing`` may say what else is not there. ``files`` go into
    its directory, ``path`` before its PYTHONPATH; ``version`` is an argv that prints one."""

    name: str
    executable: str
    argv: Callable[[Place], list[str]]
    files: Callable[[Place], Mapping[str, str]] = lambda _: {}
    version: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    missing: Callable[[], str] = str

    @property
    def installed(self) -> bool:
        return not self.lacks

    @property
    def lacks(self) -> str:
        """What keeps it from running here; empty if nothing does."""
        return self.missing() if shutil.which(self.executable) else f"{self.executable} is not installed"

    def said_version(self) -> str:
        """The first line the program prints of itself, without the path it may begin with; or nothing."""
        if not self.version or not self.installed:
            return ""
        try:
            done = subprocess.run(self.version, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        said = (done.stdout or done.stderr).strip().partition("\n")[0]
        return said.removeprefix(shutil.which(self.executable) or "").strip()


REDIS = Program(
    name="redis",
    executable="redis-server",
    argv=lambda place: ["redis-server", "--port", str(place.port), "--bind", HOST, "--save", "", "--appendonly", "no"],
    version=("redis-server", "--version"),
)


def python_origin(name: str = "origin") -> Program:
    """The bench's own origin as a process: slower than nginx, but always there, and it can be killed."""
    return Program(
        name=name,
        executable=sys.executable,
        argv=lambda place: [sys.executable, "-m", "bench.origin", str(place.port)],
        path=(str(REPOSITORY / "contrib"),),
    )


@frozen
class Variant:
    """A gateway to measure: a name, and its command, in which ``{config}``, ``{port}``, ``{origin}``, ``{python}``,
    ``{twistd}`` and ``{profile}`` are filled in. Two checkouts side by side are two variants."""

    name: str
    command: str
    path: tuple[str, ...] = ()

    def program(self, config: Callable[[Place], Document], name: str = "", profile: tuple[str, ...] = ()) -> Program:
        """This gateway with a configuration, written into its directory as ``gateway.yaml`` (JSON is YAML)."""

        def argv(place: Place) -> list[str]:
            words = {
                "config": str(place.directory),
                "port": str(place.port),
                "origin": str(place.origins[0]) if place.origins else "",
                "python": sys.executable,
                "twistd": TWISTD,
            }
            pieces: list[str] = []
            for piece in shlex.split(self.command):
                pieces += profile if piece == "{profile}" else [piece.format_map(words)]
            return pieces

        first = argv(Place(Path(), 0))[0]
        return Program(
            name=name or self.name,
            executable=first,
            argv=argv,
            files=lambda place: {"gateway.yaml": json.dumps(config(place), indent=1)},
            path=self.path,
        )

    @property
    def profiles_itself(self) -> bool:
        return "{profile}" in shlex.split(self.command)


# Not resolved: in a virtual environment the interpreter is a link, and its scripts stand beside the link.
TWISTD = str(Path(sys.executable).with_name("twistd"))
GATEWAY = Variant("apigw", "{twistd} -n --pidfile= {profile} apigw --config {config}")
"""The one installed where the bench itself runs."""


def parse_variant(text: str) -> Variant:
    """``NAME=COMMAND``, or a command alone, which is then called after its program."""
    name, equals, command = text.partition("=")
    if equals and name.replace("-", "").replace("_", "").isalnum():
        return Variant(name, command)
    return Variant(Path(shlex.split(text)[0]).name, text)


class NotStarted(Exception):
    """A program ended or did not listen; the message says which, and its last words."""


@frozen(eq=False)
class Running:
    """A started program. It leads a session, so that all its children are known and can be ended with it."""

    name: str
    place: Place
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def port(self) -> int:
        return self.place.port

    @property
    def session(self) -> int:
        return self.process.pid

    def last_words(self, lines: int = 5) -> str:
        text = (self.place.directory / "output.log").read_text(errors="replace")
        return "\n".join(text.strip().splitlines()[-lines:])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, patience: float = 5.0) -> int:
        """SIGTERM, and after ``patience`` seconds SIGKILL to all its children too. Returns the exit code."""
        try:
            self.process.terminate()
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.session, signal.SIGKILL)
            self.process.wait()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_listening(running: Running, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise NotStarted(f"{running.name} ended with {running.process.returncode}: {running.last_words()}")
        try:
            socket.create_connection((HOST, running.port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise NotStarted(f"{running.name} did not listen within {patience:.0f} s: {running.last_words()}")


def start(
    program: Program,
    core: int | tuple[int, ...],
    directory: Path,
    stack: ExitStack,
    origins: tuple[int, ...] = (),
    port: int | None = None,
    patience: float = 60.0,
) -> Running:
    """Start ``program`` on ``core``, or on several, in a new directory below ``directory``, and wait until it listens.

    ``stack`` stops it, whatever happens. Raises ``NotStarted``.
    """
    own = directory / f"{len(list(directory.iterdir()))}-{program.name.replace(' ', '-')}"
    place = Place(own, port or free_port(), origins)
    place.directory.mkdir()
    for name, text in program.files(place).items():
        (place.directory / name).write_text(text)
    path = os.pathsep.join(filter(None, (*program.path, os.environ.get("PYTHONPATH"))))
    cores = (core,) if isinstance(core, int) else core
    with (place.directory / "output.log").open("wb") as log, pinned(*cores):
        try:
            process = subprocess.Popen(
                program.argv(place),
                cwd=place.directory,
                env={**os.environ, "PYTHONPATH": path} if path else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotStarted(f"{program.name}: {error}") from error
    running = Running(program.name, place, process)
    stack.callback(running.stop)
    _wait_until_listening(running, patience)
    return running
