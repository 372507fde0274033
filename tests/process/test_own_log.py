"""The daemon's own log, moved away while it is written."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel

from apigw.process.own_log import OwnLog


def test_a_file_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    """The old one keeps what it has, and gets nothing more."""
    path = tmp_path / "log"
    own = OwnLog(str(path))
    note = own.observer()
    note({"log_format": "first", "log_level": LogLevel.info, "log_time": 0.0})
    path.rename(tmp_path / "old")
    note({"log_format": "second", "log_level": LogLevel.info, "log_time": 0.0})
    own.reopen()
    note({"log_format": "third", "log_level": LogLevel.info, "log_time": 0.0})
    assert [line.rpartition(" ")[2] for line in (tmp_path / "old").read_text().splitlines()] == ["first", "second"]
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["third"]


def test_a_file_that_cannot_be_opened_anew_goes_on(tmp_path: Path) -> None:
    """As after ``--uid``, where only root may write to the directory."""
    folder = tmp_path / "folder"
    folder.mkdir()
    own = OwnLog(str(folder / "log"))
    note = own.observer()
    folder.rename(tmp_path / "moved")
    own.reopen()
    note({"log_format": "still", "log_level": LogLevel.info, "log_time": 0.0})
    assert (tmp_path / "moved" / "log").read_text().endswith("still\n")
