# Compiled: see docs/decisions/compiled.md
"""What the workers know of a target together, in the page that they share (docs/decisions/shared-circuits.md)."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from apigw.shared.cells import FIRST
from apigw.shared.page import TARGET_SIZE, Page
from apigw.shared.slots import MOST_WORKERS

_HEALTH: Final = FIRST
"""What the last health check said, written by the worker that checks: 0 if there was none."""
_KNOWN: Final = 1
_PASSED: Final = 2
_HEALTHY: Final = 4

WANTED: Final = 6
"""When a worker last asked for a connection that others have, in milliseconds; and which."""
_WHY: Final = 8
"""Why the last health check failed."""
_WHY_WORDS: Final = 16
STANDING: Final = 24
"""The first of the words of ``shared_standing``."""

COLUMNS: Final = 32
CONNECTIONS: Final = 0
WAITING: Final = 1
COLUMN: Final = 2
"""Of each worker: its connections, and its exchanges that wait for one. Both with its process id, so that those of a
process that has died count no longer, as soon as the master has cleared its slot."""
assert COLUMNS + MOST_WORKERS * COLUMN == TARGET_SIZE


@final
class SharedTarget:
    """What one worker reads and writes of it: ``cell`` of ``page.targets``."""

    def __init__(self, page: Page, cell: int) -> None:
        self._cells = page.targets
        self._cell = cell
        self._loads = page.loads
        self._worker: i64 = page.worker
        self._number: i64 = page.targets.number_of(cell)
        self._row = page.loads.row(page.worker)
        self._place = int(self._number)
        words = page.targets.words
        self._words = words[cell : cell + COLUMNS]
        self._times = self._words.cast("B").cast("d")
        self._text = words[cell + _WHY : cell + _WHY + _WHY_WORDS].cast("B")

    def used(self, now: float) -> None:
        """Say that it is in use. Called twice a second."""
        self._cells.use(self._cell, now)

    def checked(self, passed: bool, healthy: bool, why: str) -> None:
        """By the worker that checks: the last result, and what follows from it."""
        size = 8 * _WHY_WORDS
        self._text[:] = why.encode("utf-8", "replace")[:size].ljust(size, b"\0")
        self._words[_HEALTH] = _KNOWN | (_PASSED if passed else 0) | (_HEALTHY if healthy else 0)

    @property
    def is_known(self) -> bool:
        """Whether it was ever checked."""
        health: i64 = self._words[_HEALTH]
        return health != 0

    @property
    def passed(self) -> bool:
        """The result of the last check."""
        health: i64 = self._words[_HEALTH]
        return health & _PASSED != 0

    @property
    def healthy(self) -> bool:
        """Whether it is, as far as is known."""
        health: i64 = self._words[_HEALTH]
        return health == 0 or health & _HEALTHY != 0

    @property
    def why(self) -> str:
        """Why the last check failed."""
        return bytes(self._text).rstrip(b"\0").decode("utf-8", "replace")

    def begins(self, requests: int) -> None:
        """So many more requests are in flight with it; less than 0 if they have ended."""
        before: int = self._row[self._place]
        self._row[self._place] = before + requests

    @property
    def busy_elsewhere(self) -> int:
        """How many requests other workers have in flight with it."""
        return self._loads.of_others(self._worker, self._number)
