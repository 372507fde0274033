"""Conditions are waited for, up to a deadline; nothing here sleeps for a time that is hoped to be enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")
PATIENCE = 15.0
"""Seconds: more than any condition takes on a busy machine."""

RARELY = 0.05
"""Seconds between two looks at what takes long: looking takes a core from what is waited for."""


def eventually(
    condition: Callable[[], T | Literal[False, 0] | None], patience: float = PATIENCE, interval: float = 0.01
) -> T:
    """The first true value of ``condition``. Fails with its last one; what it raises counts as false."""
    give_up = time.monotonic() + patience
    last: object
    while True:
        try:
            found = last = condition()
            if found:
                return found
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() > give_up:
            raise AssertionError(f"did not come true within {patience:g} s: {last!r}")
        time.sleep(interval)
        interval = max(interval, min(interval * 1.1, RARELY))
