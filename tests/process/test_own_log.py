"""The daemon's own log, whatever becomes of its file or of who reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import eventually
from twisted.logger import LogLevel, globalLogPublisher

from apigw.process.own_log import MAX_PENDING, OwnLog


def note(own: OwnLog, text: str) -> None:
    own({"log_format": "{text}", "text": text, "log_level": LogLevel.info, "log_time": 0.0})


def messages(path: Path) -> list[str]:
    return [line.rpartition(" ")[2] for line in path.read_text().splitlines()]


def started(path: Path) -> OwnLog:
    own = OwnLog(str(path))
    own.open()
    own.start()
    return own


def test_a_file_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    """The old one keeps what it has, and gets nothing more."""
    path = tmp_path / "log"
    own = started(path)
    note(own, "first")
    eventually(path.read_text)
    path.rename(tmp_path / "old")
    note(own, "second")
    own.reopen()
    note(own, "third")
    own.close()
    assert messages(tmp_path / "old") == ["first", "second"]
    assert messages(path) == ["third"]


def test_a_file_that_cannot_be_opened_anew_goes_on(tmp_path: Path) -> None:
    """As after ``--uid``, where only root may write to the directory."""
    folder = tmp_path / "folder"
    folder.mkdir()
    own = started(folder / "log")
    folder.rename(tmp_path / "moved")
    own.reopen()
    note(own, "still")
    own.close()
    assert messages(tmp_path / "moved" / "log") == ["still"]


def test_what_is_logged_before_the_thread_runs_is_not_lost(tmp_path: Path) -> None:
    """Also where the program ends before it has started."""
    own = OwnLog(str(tmp_path / "log"))
    own.open()
    note(own, "early")
    own.close()
    assert messages(tmp_path / "log") == ["early"]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe and its reading end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def test_a_pipe_that_nobody_reads(pipe: tuple[Path, int]) -> None:
    """What fits is kept, the rest counted; when somebody reads again, all that was kept comes, and how much was not."""
    path, reader = pipe
    counted: list[int] = []
    own = started(path)
    own.count_lost(counted.append)
    lines = 2 * MAX_PENDING // 1024
    for _ in range(lines):
        note(own, "x" * 1024)
    assert lines // 4 < sum(counted) < lines
    received = b""

    def told() -> bool:
        nonlocal received
        received += os.read(reader, 1 << 20)
        return b"lines of this log were lost" in received

    globalLogPublisher.addObserver(own)
    try:
        eventually(told)
    finally:
        globalLogPublisher.removeObserver(own)
    own.close()
    received += os.read(reader, 1 << 20)
    assert received.count(b"x" * 1024) == lines - sum(counted)
    assert f"{sum(counted)} lines of this log were lost: what reads it is too slow".encode() in received


def test_what_was_lost_before_anybody_counted(pipe: tuple[Path, int]) -> None:
    """It is counted as soon as somebody does."""
    path, _ = pipe
    own = started(path)
    for _ in range(2 * MAX_PENDING // 1024):
        note(own, "x" * 1024)
    counted: list[int] = []
    own.count_lost(counted.append)
    assert counted[0] > 0


def test_what_was_lost_before_a_fork_is_not_counted_twice(pipe: tuple[Path, int]) -> None:
    """A child goes on with nothing lost."""
    path, _ = pipe
    own = started(path)
    for _ in range(2 * MAX_PENDING // 1024):
        note(own, "x" * 1024)
    os.close(own.forked("worker 1"))
    counted: list[int] = []
    own.count_lost(counted.append)
    assert counted == [0]


def test_an_end_does_not_wait_for_ever(pipe: tuple[Path, int]) -> None:
    """A collector that hangs keeps no daemon from ending."""
    path, _ = pipe
    own = started(path)
    for _ in range(200):
        note(own, "x" * 1024)
    began = time.monotonic()
    own.close()
    assert time.monotonic() - began < 5


def test_what_is_logged_while_a_line_is_handed_over_is_logged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a garbage collection in the middle does, which logs an error that nobody has handled."""
    own = started(tmp_path / "log")
    append = own._appender.append

    def collecting(data: bytes) -> None:
        monkeypatch.undo()
        note(own, "within")
        append(data)

    monkeypatch.setattr(own._appender, "append", collecting)
    note(own, "without")
    own.close()
    assert messages(tmp_path / "log") == ["within", "without"]
