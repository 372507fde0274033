# Compiled: see docs/decisions/compiled.md
"""Where a name is in a table of the shared page."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

_NOWHERE: Final = memoryview(b"")


@final
class Spot:
    """Where a name is looked for: its lock, its stripe's first word, its bucket's word, and what stands for it.

    And where it was found: ``line`` are the words of its entry, and ``kind`` is what that is. Both are right after
    ``find`` or ``add``, as long as the lock is held. ``known`` is the word ``MARK`` of the entry when it was last used.
    """

    def __init__(self, lock: i64, stripe: i64, bucket: i64, mark: i64) -> None:
        self.lock = lock
        self.stripe = stripe
        self.bucket = bucket
        self.mark = mark
        self.cell: i64 = 0
        self.line: memoryview = _NOWHERE
        self.kind: i64 = 0
        self.known: i64 = 0
        self.until: i64 = 0
        """The entry's ``until`` as its owner has read it last; 0 if he has not since it was found."""
        self.seen: object = None
        """What its owner wants to remember of it, for when he cannot have the lock."""
