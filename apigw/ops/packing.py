"""Lines of JSON as one word, for what workers say to each other: deflated, in base64.

A control connection then carries some kilobytes, in which nothing is escaped. Whoever reads parses a line at a time, so
that a thread can pause in between.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from zlib import DEFLATED, compressobj, decompress

_FASTEST = 1
_WINDOW, _MEMORY = 12, 5
"""4 KiB of what was before, as lines are alike: 32 KiB of memory, which each worker keeps, where zlib takes 256."""


def pack(lines: Iterable[bytes]) -> str:
    """For use in a thread, as ``unpack``: zlib does not hold the interpreter's lock."""
    deflating = compressobj(_FASTEST, DEFLATED, _WINDOW, _MEMORY)
    return b64encode(deflating.compress(b"\n".join(lines)) + deflating.flush()).decode()


def unpack(text: str) -> list[bytes]:
    return decompress(b64decode(text)).split(b"\n")
