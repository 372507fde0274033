"""How long something holds, as people write it on the command line."""

from __future__ import annotations

import re

_PERIOD = re.compile(r"[1-9][0-9]{0,6}[smh]|[1-9][0-9]{0,4}d")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """``30m``, ``12h`` or ``90d`` in seconds. Raises ``ValueError``."""
    if not _PERIOD.fullmatch(text):
        raise ValueError(f"{text!r} is not a time: write it like 30m, 1h or 7d")
    return int(text[:-1]) * _SECONDS[text[-1]]
