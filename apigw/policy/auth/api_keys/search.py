# Compiled: see docs/decisions/compiled.md
"""Finds a key in a file of any size by a few reads, which the system serves from memory that all workers share."""

from __future__ import annotations

import os
from typing import Final

BLOCK: Final = 4096
"""Bytes of a read: more than twice the longest line."""
MOST_READS: Final = 64
INTERPOLATED: Final = 8
"""After so many reads that were aimed, the range is halved: whatever is in the file, it ends."""


class KeyFile:
    """An open file of lines that begin with a hash and are sorted by it. Raises ``OSError`` if it cannot be opened.

    It is read, and not mapped into memory: whoever cuts a mapped file short ends the process (SIGBUS).
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self._size: int = status.st_size
        self.stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        """Another one where the file has been replaced or changed."""
        self._begin = self._after_comments()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def find(self, digest: bytes) -> bytes | None:
        """The line with this hash, of 64 hexadecimal digits, without its end; ``None`` if there is none.

        Hashes are spread evenly, so the place of one can be told from its value (interpolation search): of a million,
        two or three reads find it.
        """
        wanted = int(digest[:15], 16)
        low, high = self._begin, self._size
        low_value, high_value = 0, 1 << 60
        for reads in range(MOST_READS):
            if low >= high:
                return None
            begin = low
            if high - low > BLOCK:
                if reads < INTERPOLATED:
                    guess = low + (high - low) * (wanted - low_value) // max(high_value - low_value, 1)
                else:
                    guess = (low + high) // 2
                begin = min(max(guess - BLOCK // 2, low), high - BLOCK)
            data = os.pread(self._descriptor, min(BLOCK, high - begin), begin)
            first = 0 if begin == low else data.find(b"\n") + 1
            last = data.rfind(b"\n")
            if last < first:
                return None
            if data.startswith(digest, first):
                return data[first : data.find(b"\n", first)]
            found = data.find(b"\n" + digest, first, last)
            if found >= 0:
                return data[found + 1 : data.find(b"\n", found + 1)]
            least = data[first : first + 64]
            if digest < least:
                high = begin + first
                high_value = _value(least)
            else:
                line = data.rfind(b"\n", first, last) + 1
                greatest = data[max(line, first) : max(line, first) + 64]
                if digest < greatest:
                    return None
                low = begin + last + 1
                low_value = _value(greatest)
        return None

    def _after_comments(self) -> int:
        at = 0
        while at < self._size:
            data = os.pread(self._descriptor, BLOCK, at)
            end = data.find(b"\n")
            if not data.startswith(b"#") or end < 0:
                break
            at += end + 1
        return at


def _value(digest: bytes) -> int:
    try:
        return int(digest[:15], 16)
    except ValueError:
        return 0
