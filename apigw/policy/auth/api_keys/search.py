# Compiled: see docs/decisions/compiled.md
"""Finds a key in a file of any size, without reading it into the memory of each worker."""

from __future__ import annotations

import mmap
import os
from typing import Any, Final

from mypy_extensions import i64

DIGITS: Final = 64
"""Of a hash."""
COMPARED: Final = 7
"""Digits from which the place of a hash is told: with more, the product below would not fit files of many gigabytes."""
LINE: Final = 128
"""Bytes of a usual line."""
NEAR: Final = 256
"""Bytes that are read at once. A usual line begins in them."""
FAR: Final = 2048
"""Bytes in which one begins in any case: twice the longest."""
MOST_STEPS: Final = 64
INTERPOLATED: Final = 16
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

        Hashes are spread evenly, so the place of one can be told from its value (interpolation search): four or five
        lines are looked at to find it among a million.
        """
        wanted = _value(digest)
        # Where the line may begin, and the values of what is around it.
        low: i64 = self._begin
        high: i64 = len(self._data)
        low_value: i64 = 0
        high_value: i64 = 1 << 4 * COMPARED
        for step in range(MOST_STEPS):
            if low >= high:
                return None
            at = low
            if high - low > NEAR:
                if step < INTERPOLATED:
                    at += (high - low) * (wanted - low_value) // max(high_value - low_value, 1)
                else:
                    at += (high - low) // 2
                at = min(max(at - LINE, low), high - 1)
            before, _, line = self._read(at, NEAR).partition(b"\n")
            if len(line) < DIGITS:
                before, _, line = self._read(at, FAR).partition(b"\n")
            begin = at + len(before)
            if begin >= high or len(line) < DIGITS:
                high = at
                continue
            found = line[:DIGITS]
            if found == digest:
                line, end, _ = self._read(begin + 1, FAR).partition(b"\n")
                return line if end else None
            if digest < found:
                high, high_value = begin, _value(found)
            else:
                low, low_value = begin + DIGITS, _value(found)
        return None

    def _read(self, at: i64, length: i64) -> bytes:
        """From the byte before ``at``, which is a line's end if one begins there."""
        data: bytes = self._data[at - 1 : at + length] if at else b"\n" + self._data[:length]
        return data

    def _after_comments(self) -> int:
        at = 0
        while self._data[at : at + 1] == b"#":
            end: int = self._data.find(b"\n", at)
            if end < 0:
                break
            at = end + 1
        return at


def _value(digest: bytes) -> i64:
    """Of the first digits. Of what is no digit it is anything."""
    value: i64 = 0
    for at in range(COMPARED):
        digit: i64 = digest[at]
        value = value << 4 | ((digit & 15) + (9 if digit > 57 else 0)) & 15
    return value
