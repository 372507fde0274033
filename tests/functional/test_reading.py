"""The process that reads a new configuration: whatever becomes of it, the gateway goes on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, gateway
from support.services import Service
from support.waiting import PATIENCE, eventually
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError
from apigw.process.reading import Reading

from .conftest import Start


@pytest.fixture
def daemon(start: Start, service: Service) -> Daemon:
    return start(gateway(services={"main": service.url}, routes=[{"path": "/a", "service": "main"}]), executed=True)


def children(daemon: Daemon) -> list[int]:
    process = daemon.process.pid
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def halt(daemon: Daemon) -> int:
    """Begin a reload whose reading does not end, since nobody writes to the pipe that it reads. Its process."""
    before = set(children(daemon))
    file = daemon.directory / "gateway.yaml"
    file.rename(file.with_suffix(".good"))
    os.mkfifo(file)
    daemon.signal(signal.SIGHUP)
    (child,) = eventually(lambda: set(children(daemon)) - before)
    return child


def mend(daemon: Daemon) -> None:
    (daemon.directory / "gateway.good").replace(daemon.directory / "gateway.yaml")


def ended(daemon: Daemon, reloads: int) -> dict[str, Any]:
    """The status after so many reloads."""
    eventually(lambda: daemon.status()["reloads"] == reloads and not daemon.status()["reloading"])
    return daemon.status()


def test_a_child_that_is_killed_is_a_failed_reload(daemon: Daemon) -> None:
    """It says so; the gateway serves on, and the next reload succeeds."""
    child = halt(daemon)
    assert daemon.status()["reloading"]
    assert daemon.get("/a").status == 200
    os.kill(child, signal.SIGKILL)
    status = ended(daemon, 1)
    assert status["last_reload"] == "failed"
    assert status["problems"] == [
        "the new configuration could not be read: the process that read it was ended by SIGKILL"
    ]
    assert child not in children(daemon)
    assert daemon.get("/a").status == 200
    mend(daemon)
    assert daemon.reload()


def test_sigterm_ends_the_reading_and_the_gateway(daemon: Daemon) -> None:
    child = halt(daemon)
    daemon.terminate()
    assert daemon.wait() == 0
    eventually(lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes())


def test_a_signal_meanwhile_becomes_one_more_reload(daemon: Daemon) -> None:
    """Of which the last one reads what is there then."""
    child = halt(daemon)
    for _ in range(3):
        daemon.signal(signal.SIGHUP)
    assert daemon.status()["reloading"]
    mend(daemon)
    os.kill(child, signal.SIGKILL)
    assert ended(daemon, 2)["last_reload"] == "succeeded"


def test_a_directory_that_has_vanished_is_named(daemon: Daemon) -> None:
    hidden = daemon.directory.with_name("hidden")
    daemon.directory.rename(hidden)
    try:
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "] not reloaded: " in (hidden / daemon.log_file.name).read_text())
    finally:
        hidden.rename(daemon.directory)
    (problem,) = ended(daemon, 1)["problems"]
    assert str(daemon.directory) in problem
    assert daemon.reload()


def outcome(reading: Reading, reactor: Any) -> Any:
    results: list[Any] = []
    reading.read().addBoth(results.append)

    def came() -> bool:
        reactor.iterate(0.01)
        return bool(results)

    eventually(came, 4 * PATIENCE, interval=0)  # it runs only while a core is free, or on a tenth of one
    (result,) = results
    if isinstance(result, Failure):
        assert isinstance(result.value, ConfigError), result
        return str(result.value)
    return result


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text("services: {}\nroutes: []\n")
    return tmp_path


def test_what_cannot_be_started_is_named(etc: Path) -> None:
    reactor: Any = EPollReactor()
    said = outcome(Reading(reactor, str(etc), python="/nowhere/python"), reactor)
    assert said == "the new configuration could not be read: /nowhere/python: No such file or directory"


def test_a_process_that_dies_is_quoted(etc: Path) -> None:
    """With the last line of what it said."""
    broken = etc / "python"
    broken.write_text("#!/bin/sh\necho something >&2\necho no such module >&2\nexit 3\n")
    broken.chmod(0o755)
    reactor: Any = EPollReactor()
    said = outcome(Reading(reactor, str(etc), python=str(broken)), reactor)
    why = "the process that read it ended with exit code 3: no such module"
    assert said == f"the new configuration could not be read: {why}"


def test_what_takes_too_long_is_ended(etc: Path) -> None:
    (etc / "gateway.yaml").unlink()
    os.mkfifo(etc / "gateway.yaml")
    reactor: Any = EPollReactor()
    said = outcome(Reading(reactor, str(etc), patience=0.2), reactor)
    assert said == "the new configuration was not read within 0.2 s"


def test_what_says_nothing_is_no_configuration(etc: Path) -> None:
    """A policy may end the process, with 0."""
    silent = etc / "python"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    reactor: Any = EPollReactor()
    said = outcome(Reading(reactor, str(etc), python=str(silent)), reactor)
    assert said == (
        "the new configuration could not be read: the process that read it ended with exit code 0: it did not say why"
    )


@pytest.mark.parametrize("says", ["", "while :; do echo more >&2; sleep 0.05; done;"], ids=["silent", "noisy"])
def test_a_process_that_another_has_started_is_not_waited_for(etc: Path, says: str) -> None:
    """A policy may start one, which has the pipes too, and outlives the reading."""
    forks = etc / "python"
    forks.write_text(f'#!/bin/sh\n({says} sleep 600) &\necho $! > "$0.pid"\nexec {sys.executable} "$@"\n')
    forks.chmod(0o755)
    reactor: Any = EPollReactor()
    try:
        handed = outcome(Reading(reactor, str(etc), python=str(forks)), reactor)
    finally:
        os.kill(int((etc / "python.pid").read_text()), signal.SIGKILL)
    assert handed.routes == 0


def test_another_program_on_disk_is_refused(etc: Path) -> None:
    """What it hands over could mean something else to the one that runs."""
    reactor: Any = EPollReactor()
    reading = Reading(reactor, str(etc))
    reading._code = "that of yesterday"
    assert outcome(reading, reactor) == "the program on disk is not the one that runs: restart or upgrade the gateway"


def test_what_is_printed_by_chance_gets_not_in_between(etc: Path) -> None:
    """As by a start-up hook of the interpreter."""
    noisy = etc / "python"
    noisy.write_text(f'#!/bin/sh\nexec {sys.executable} -X importtime "$@"\n')
    noisy.chmod(0o755)
    reactor: Any = EPollReactor()
    assert outcome(Reading(reactor, str(etc), python=str(noisy), patience=4 * PATIENCE), reactor).routes == 0
