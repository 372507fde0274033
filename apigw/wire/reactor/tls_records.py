# Compiled: see docs/decisions/compiled.md
"""The records of TLS in a stream of bytes (RFC 8446 §5.1)."""

from __future__ import annotations

from typing import Final

HEADER: Final = 5
"""Bytes of a record's header."""
NO_RECORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Bytes with which HTTP begins, and no record: its first byte is its type, at most 24 (RFC 6520)."""


class Records:
    """Counts the records in a stream of bytes."""

    def __init__(self) -> None:
        self._left = 0
        """Bytes until the end of the record in progress."""
        self._header = b""
        """The beginning of a header that has not arrived completely."""

    def completed(self, data: bytes) -> int:
        """The number of records that end in ``data``, which follows what was given before."""
        count = 0
        at = self._left
        size = len(data)
        if self._header:
            data = self._header + data
            size = len(data)
            self._header = b""
            at = 0
        elif at:
            if at > size:
                self._left = at - size
                return 0
            count = 1
        while size - at >= HEADER:
            at += HEADER + (data[at + 3] << 8 | data[at + 4])
            if at <= size:
                count += 1
        if at < size:
            self._header = data[at:]
        self._left = at - size if at > size else 0
        return count
