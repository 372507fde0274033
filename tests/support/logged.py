"""What is logged while a test does something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import globalLogPublisher


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Every event."""
    events: list[Any] = []
    observe: Any = events.append
    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)


def failures(events: list[Any]) -> list[str]:
    """What was logged with a traceback."""
    return [str(event["log_failure"].value) for event in events if event.get("log_failure")]
