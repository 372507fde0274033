"""Lines of the daemon's own log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from apigw.process.own_lines import is_journal, json_line, level_of, text_line, with_priority
from apigw.process.own_log import OwnLog


def event(level: LogLevel | None = LogLevel.warn, text: str = "two\nlines", **more: Any) -> LogEvent:
    found = {"log_format": "{text}", "text": text, "log_time": 0.25, "log_namespace": "apigw.x", **more}
    return found if level is None else {**found, "log_level": level}


def test_json_has_the_fields_of_the_access_log() -> None:
    """One object a line, whatever is in the text; with the same names for time and level."""
    line = json_line(event(), "worker 1")
    assert line is not None
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warn",
        "logger": "apigw.x",
        "message": "two\nlines",
        "worker": "1",
    }


def test_a_traceback_stays_in_its_line() -> None:
    """A failure is one object too."""
    try:
        raise ValueError("\x1b[31m odd")
    except ValueError:
        line = json_line(event(LogLevel.critical, log_failure=Failure()), "")
    assert line is not None
    assert line.isascii()
    told = json.loads(line)
    assert "ValueError" in told["traceback"]
    assert "worker" not in told


def test_text_names_the_worker() -> None:
    """As Twisted writes it, with who writes it."""
    line = text_line(event(text="hello"), "worker 1")
    assert line is not None
    assert line.endswith(" [worker 1: apigw.x#warn] hello\n")


def test_text_cannot_look_like_another_event() -> None:
    """Nor move the cursor of a terminal; what follows a newline is indented. Plugins may log what clients send."""
    line = text_line(event(text="a\r2026-01-01 forged\x1b[31m\x85b\u2028c\nd\te"), "")
    assert line is not None
    assert line.endswith("a\\x0d2026-01-01 forged\\x1b[31m\\x85b\\u2028c\n\td\te\n")
    assert len(line.splitlines()) == 2


@pytest.mark.parametrize(
    ("given", "level"),
    [(event(), "warn"), (event(None), "info"), (event(None, isError=1), "critical")],
)
def test_every_event_has_a_level(given: LogEvent, level: str) -> None:
    """Also what print or old code logs."""
    assert level_of(given) == level


def test_journald_gets_priorities() -> None:
    """Each line of a text has the priority of its event: `journalctl -p warning` shows it."""
    assert with_priority("a\n\tb\n", event()) == "<4>a\n<4>\tb\n"


def test_the_journal_is_known_by_its_descriptor(tmp_path: Path) -> None:
    """A pipe to another program gets no priorities, though the environment was inherited."""
    with open(tmp_path / "a", "w") as one, open(tmp_path / "b", "w") as other:
        status = os.fstat(one.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(one.fileno(), environ)
        assert not is_journal(other.fileno(), environ)
        assert not is_journal(one.fileno(), {})


def test_what_is_below_the_level_is_left_out(tmp_path: Path) -> None:
    """`level: warn` writes warnings and errors."""
    own = OwnLog(str(tmp_path / "log"), "json", "warn")
    own.open()
    for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error):
        own(event(level))
    own.close()
    assert [json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()] == ["warn", "error"]
