"""The audit log: whole lines, bounded, without waiting."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually
from twisted.internet.task import Clock

from apigw.ops.appender import PIPE_BUF
from apigw.ops.audit_log import MAX_PENDING, AuditLog, line_of


class Reactor(Clock):
    """Calls from the thread are made at once: they only count here."""

    def callFromThread(self, f: Any, *args: Any) -> None:
        f(*args)


class Kept:
    def __init__(self, file: Path) -> None:
        self.reactor: Any = Reactor()
        self.said: list[str] = []
        self.lost: list[int] = []
        self.log = AuditLog(str(file), self.reactor, lambda: 1_764_169_445.678, self.said.append, self.lost.append)
        self.log.start()

    def stop(self) -> None:
        stopped: list[None] = []
        self.log.stop().addCallback(stopped.append)
        eventually(lambda: bool(stopped))


def test_a_line(tmp_path: Path) -> None:
    """Time, event, outcome and who come first, and the rest as it is given; after a reopening in the new file."""
    kept = Kept(tmp_path / "audit.log")
    kept.log.note("denial", "added", "127.0.0.1", kind="address", cut=2, provider=None, reason='a\n"b" \u20ac')
    eventually(lambda: (tmp_path / "audit.log").read_bytes().endswith(b"\n"))
    os.rename(tmp_path / "audit.log", tmp_path / "old")
    kept.log.reopen()
    kept.log.note("circuit", "open", "127.0.0.1", service="orders")
    kept.stop()
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("old", "audit.log"))
    assert list(first.items())[:4] == [
        ("time", "2025-11-26T15:04:05.678Z"),
        ("event", "denial"),
        ("outcome", "added"),
        ("by", "127.0.0.1"),
    ]
    assert (first["cut"], first["provider"], first["reason"]) == (2, None, 'a\n"b" \u20ac')
    assert (second["event"], second["service"]) == ("circuit", "orders")
    assert oct((tmp_path / "audit.log").stat().st_mode & 0o027) == "0o0"


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_long_lines(size: int) -> None:
    """No line is longer than what a pipe takes in one piece; of a list the beginning stays, and what is missing."""
    line = line_of(0.0, "reload", "succeeded", "gateway", {"changed": [f"changed: routes./{n}" for n in range(size)]})
    assert len(line) <= PIPE_BUF and line.count(b"\n") == 1
    changed = json.loads(line)["changed"]
    assert changed[0] == "changed: routes./0"
    assert size == 10 or changed[-1] == f"and {size - len(changed) + 1} more"
    huge = line_of(0.0, "a", "b", "c", {str(n): "\u20ac" * size for n in range(50)})
    assert len(huge) <= PIPE_BUF and json.loads(huge)["by"] == "c"


def fill(pipe: Path) -> None:
    """Nobody can write to it any more."""
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * PIPE_BUF)
    os.close(writer)


def test_a_disk_that_is_too_slow(tmp_path: Path) -> None:
    """What waits is bounded, what is lost is counted, and the daemon's log says when that begins and ends."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    fill(tmp_path / "pipe")
    kept = Kept(tmp_path / "pipe")
    fact = "x" * 200
    for _ in range(MAX_PENDING // 200):
        kept.log.note("token", "issued", "192.0.2.1", fact=fact)
    assert sum(kept.lost) > 0 and len(kept.said) == 1 and "being lost" in kept.said[0]
    os.set_blocking(reader, True)
    while b'"last"' not in os.read(reader, 1 << 20):
        kept.log.note("token", "last", "192.0.2.1")
    assert kept.said[-1] == "audit log: whole again"
    os.set_blocking(reader, False)
    os.close(reader)
    kept.stop()
