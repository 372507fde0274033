"""Signals at any moment of the process's life: nothing that comes kills it, and nothing is forgotten."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.daemon import Daemon, gateway
from support.services import Service
from support.waiting import eventually

from .conftest import Start
from .test_start import twistd

ALL = [{"path": "/*", "service": "main"}]
KEPT = (signal.SIGHUP, signal.SIGUSR1)
ENDS = (signal.SIGTERM, signal.SIGINT)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.fixture
def starting(tmp_path: Path, module_service: Service) -> Iterator[Daemon]:
    """A daemon that has got no further than to the first of its signals."""
    daemon = Daemon(tmp_path / "gateway", gateway(services={"main": module_service.url}, routes=ALL)).launch()
    eventually(lambda: catches(daemon.process.pid, signal.SIGHUP), interval=0.0005)
    yield daemon
    daemon.kill()


@pytest.mark.parametrize("number", KEPT, ids=lambda number: number.name)
def test_what_comes_while_the_process_starts_is_done_when_it_runs(starting: Daemon, number: signal.Signals) -> None:
    """A reload that is asked for before the configuration has been read happens once there is something to reload."""
    starting.signal(number)
    assert "starting up" not in starting.log
    eventually(lambda: "listening on" in starting.log)
    if number == signal.SIGHUP:
        eventually(lambda: "configuration reloaded: 1 routes" in starting.log)
    eventually(lambda: list(starting._listening())[1:])
    assert starting.get("/a").status == 200
    starting.terminate()
    assert starting.wait() == 0
    assert "Traceback" not in starting.log


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_a_process_that_is_told_to_end_while_it_starts_ends_at_once(starting: Daemon, number: signal.Signals) -> None:
    """It has nobody to drain, and exits with 0."""
    starting.signal(number)
    assert starting.wait() == 0
    assert "Traceback" not in starting.log


def test_a_storm_of_signals_from_the_start_kills_nobody(starting: Daemon) -> None:
    """Nor does one that goes on until it serves."""

    def serves() -> bool:
        for number in KEPT:
            starting.signal(number)
        return len(list(starting._listening())) == 2 and starting.get("/a").status == 200

    eventually(serves, interval=0.001)
    starting.terminate()
    assert starting.wait() == 0
    assert "Traceback" not in starting.log


@pytest.fixture
def logging(tmp_path: Path, module_service: Service) -> Iterator[Path]:
    """The directory of a daemon in the background that writes both logs there: ``log`` and ``access.log``."""
    access_log = {"file": str(tmp_path / "access.log"), "format": "json"}
    document = gateway(services={"main": module_service.url}, routes=ALL, access_log=access_log)
    Daemon(tmp_path / "etc", document)
    done = twistd("--pidfile=pid", "--logfile=log", "apigw", "--config", "etc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    yield tmp_path
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_logrotate_moves_both_logs_away(logging: Path) -> None:
    """SIGUSR1 begins new files in their places, and what comes then is in them."""
    pid = int((logging / "pid").read_text())
    eventually(lambda: "listening on" in (logging / "log").read_text())
    for number in range(2):
        for name in ("log", "access.log"):
            (logging / name).rename(logging / f"{name}.{number}")
        os.kill(pid, signal.SIGUSR1)
        eventually(lambda: (logging / "log").exists() and (logging / "access.log").exists())
        before = (logging / f"log.{number}").read_text()
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "configuration reloaded: " in (logging / "log").read_text())
        assert (logging / f"log.{number}").read_text() == before


def test_a_log_that_nobody_moved_goes_on(logging: Path) -> None:
    """SIGUSR1 throws nothing away."""
    eventually(lambda: "listening on" in (logging / "log").read_text())
    before = (logging / "log").read_text()
    pid = int((logging / "pid").read_text())
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: "configuration reloaded: " in (logging / "log").read_text())
    assert (logging / "log").read_text().startswith(before)
    assert sorted(file.name for file in logging.iterdir() if "log" in file.name) == ["access.log", "log"]


def test_a_signal_for_logrotate_without_any_file(start: Start, module_service: Service) -> None:
    """It does nothing."""
    daemon = start(gateway(services={"main": module_service.url}, routes=ALL))
    daemon.signal(signal.SIGUSR1)
    for _ in range(3):
        assert daemon.get("/a").status == 200
