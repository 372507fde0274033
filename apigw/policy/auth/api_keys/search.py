# Compiled: see docs/decisions/compiled.md
"""Finds a key in a file of any size, without reading it into the memory of each worker."""

from __future__ import annotations

import mmap
import os
from typing import Any, Final

BLOCK: Final = 4096
"""Bytes that are searched at once: more than twice the longest line."""
DIGITS: Final = 64
"""Of a hash."""
MOST_STEPS: Final = 64
INTERPOLATED: Final = 8
"""After so many steps that were aimed, the range is halved: whatever is in the file, it ends."""
COPIED: Final = 4 * 1024 * 1024
"""Larger files are mapped into memory. Whoever cuts a mapped file short ends the process (SIGBUS); who writes a file in
place, instead of replacing it, does so by hand, and such files are small."""


class KeyFile:
    """A file of lines that begin with a hash and are sorted by it, as it is when it is opened; raises ``OSError``.

    The pages of a large one are in memory once, whatever the number of workers.
    """

    def __init__(self, path: str) -> None:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            self.stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            """Another one where the file has been replaced or changed."""
            self._data: Any
            if status.st_size > COPIED:
                self._data = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ)
            else:
                self._data = file.read(COPIED)
        self._begin = self._after_comments()

    def find(self, digest: bytes) -> bytes | None:
        """The line with this hash, of 64 hexadecimal digits, without its end; ``None`` if there is none.

        Hashes are spread evenly, so the place of one can be told from its value (interpolation search): two or three
        steps find it among a million.
        """
        wanted = int(digest[:15], 16)
        low, high = self._begin, len(self._data)
        low_value, high_value = 0, 1 << 60
        for step in range(MOST_STEPS):
            if low >= high:
                return None
            begin = low
            if high - low > BLOCK:
                if step < INTERPOLATED:
                    guess = low + (high - low) * (wanted - low_value) // max(high_value - low_value, 1)
                else:
                    guess = (low + high) // 2
                begin = min(max(guess - BLOCK // 2, low), high - BLOCK)
            data: bytes = self._data[begin : min(begin + BLOCK, high)]
            first = 0 if begin == low else data.find(b"\n") + 1
            end = data.rfind(b"\n")
            if end < first:
                return None
            least = data[first : first + DIGITS]
            if digest < least:
                high, high_value = begin + first, _value(least)
                continue
            if digest == least:
                return data[first : data.find(b"\n", first)]
            last = data.rfind(b"\n", first, end) + 1 or first
            most = data[last : last + DIGITS]
            if most < digest:
                low, low_value = begin + end + 1, _value(most)
                continue
            at = data.find(b"\n" + digest, first, end) + 1
            return data[at : data.find(b"\n", at)] if at else None
        return None

    def _after_comments(self) -> int:
        at = 0
        while self._data[at : at + 1] == b"#":
            end: int = self._data.find(b"\n", at)
            if end < 0:
                break
            at = end + 1
        return at


def _value(line: bytes) -> int:
    try:
        return int(line[:15], 16)
    except ValueError:
        return 0
