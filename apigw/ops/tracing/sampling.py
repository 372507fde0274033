# Compiled: see docs/decisions/compiled.md
"""Which traces are recorded."""

from __future__ import annotations

from typing import Final, final

_DIGITS: Final = 14
"""Hexadecimal digits at the end of a trace's id: the 56 bits that are random (Trace Context, level 2, §3.2.2.3)."""


@final
class Sampler:
    """Chooses a ``share`` of all traces by their ids, so that every program with the same share chooses the same."""

    def __init__(self, share: float) -> None:
        self._all = share >= 1
        self._none = share <= 0
        self._below = b"%014x" % min(int(share * 16**_DIGITS), 16**_DIGITS - 1)

    def chooses(self, trace_id: bytes) -> bool:
        if self._all or self._none:
            return self._all
        return trace_id[-_DIGITS:] < self._below
