"""A wall clock that a test sets, in a daemon that runs: the machine's own goes on as it was."""

from __future__ import annotations

import time
from pathlib import Path
from struct import pack

_CUSTOMIZED = """
import mmap, struct, time

with open({ahead!r}, "rb") as file:
    _ahead = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
_real = time.time
time.time = lambda: _real() + struct.unpack("=d", _ahead)[0]
"""


class WallClock:
    """What ``time.time`` says in each process that is started with ``environ``. Times are seconds."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._file = directory / "ahead"
        self._file.write_bytes(pack("=d", 0))
        (directory / "sitecustomize.py").write_text(_CUSTOMIZED.format(ahead=str(self._file)))
        self.environ = {"PYTHONPATH": str(directory)}
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def step(self, seconds: float) -> None:
        """As an administrator or a time server does."""
        self.ahead += seconds
        with open(self._file, "r+b") as file:  # in place, for those who have it mapped
            file.write(pack("=d", self.ahead))
