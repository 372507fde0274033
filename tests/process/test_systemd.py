"""The watchdog of the service manager."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from apigw.process.systemd import expect_within, watchdog


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


@pytest.mark.parametrize("process", [None, str(os.getpid())], ids=["any process", "this process"])
def test_it_hears_twice_in_its_time_that_the_reactor_runs(manager: socket.socket, process: str | None) -> None:
    """At the start, and then each half of the time, until the end."""
    clock = Clock()
    environ = {"WATCHDOG_USEC": "10000000", **({"WATCHDOG_PID": process} if process else {})}
    timer = watchdog(clock, environ)
    assert timer is not None
    timer.startService()
    assert manager.recv(100) == b"WATCHDOG=1"
    clock.advance(4.9)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    clock.advance(0.1)
    assert manager.recv(100) == b"WATCHDOG=1"
    timer.stopService()
    clock.advance(10)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_it_hears_nothing_while_nobody_serves(manager: socket.socket) -> None:
    """As when no worker answers the master."""
    clock, lives = Clock(), [False]
    timer = watchdog(clock, {"WATCHDOG_USEC": "10000000"}, lambda: lives[0])
    assert timer is not None
    timer.startService()
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    lives[0] = True
    clock.advance(5)
    assert manager.recv(100) == b"WATCHDOG=1"
    timer.stopService()


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}],
    ids=["none", "empty", "zero", "another process's"],
)
def test_without_one_there_is_no_timer(environ: dict[str, str]) -> None:
    """No watchdog, or one that watches another process."""
    assert watchdog(Clock(), environ) is None


def test_it_waits_longer_for_another_program(manager: socket.socket) -> None:
    """And then as long as it is configured; without one nothing is said."""
    environ = {"WATCHDOG_USEC": "10000000"}
    expect_within(environ, 120)
    assert manager.recv(100) == b"WATCHDOG_USEC=120000000"
    expect_within(environ)
    assert manager.recv(100) == b"WATCHDOG_USEC=10000000"
    expect_within({}, 120)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
