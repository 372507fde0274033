"""How a line of the daemon's own log is written: as Twisted writes it, or as JSON; with a priority for the journal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText

LEVELS = ("debug", "info", "warn", "error", "critical")

Line = Callable[[LogEvent, str], str | None]
"""The line of an event, with its newline, of the worker with this name; None for none."""

_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""Of syslog(3)."""

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_ESCAPED |= {0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Controls, which could move the cursor of a terminal, or be the end of a line for some readers. Twisted indents what
follows a newline in an event, and so nothing can look like another event."""


def of_format(format: str) -> Line:
    """``text`` or ``json``."""
    return {"text": text_line, "json": json_line}[format]


def level_of(event: LogEvent) -> str:
    """What has none, as ``print`` or the old ``log.msg`` write it, is information."""
    level = event.get("log_level") or (LogLevel.critical if event.get("isError") else LogLevel.info)
    return str(level.name)


def text_line(event: LogEvent, who: str) -> str | None:
    if who:
        event = {**event, "log_system": f"{who}: {_system(event)}"}
    text = formatEventAsClassicLogText(event)
    return None if text is None else text.translate(_ESCAPED)


def json_line(event: LogEvent, who: str) -> str | None:
    """``time``, ``level``, ``logger``, ``message``, and where they apply ``worker`` and ``traceback``. ASCII, so that
    nothing in it can end the line or reach a terminal."""
    message = formatEvent(event)
    failure = event.get("log_failure")
    if not message and failure is None:
        return None
    time = datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "time": time.replace("+00:00", "Z"),
        "level": level_of(event),
        "logger": event.get("log_namespace", "-"),
        "message": message,
    }
    if who:
        line["worker"] = who.removeprefix("worker ")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"


def with_priority(line: str, event: LogEvent) -> str:
    """Each line of the text, with the prefix that journald reads (sd-daemon(3))."""
    prefix = f"<{_PRIORITIES[level_of(event)]}>"
    return "".join(prefix + each for each in line.splitlines(keepends=True))


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected it to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _system(event: LogEvent) -> str:
    """What Twisted writes in brackets."""
    system = event.get("log_system")
    if system is None:
        level = event.get("log_level")
        system = f"{event.get('log_namespace', '-')}#{'-' if level is None else level.name}"
    return str(system)
