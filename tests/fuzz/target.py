"""A target: something that reads bytes of strangers, a property of it, and what its bytes are made of."""

from __future__ import annotations

import random
import re
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import frozen
from hypothesis.strategies import SearchStrategy

CORPUS = Path(__file__).with_name("corpus")
LONGEST = 32 * 1024
"""Of the bytes that mutations make."""


@frozen(eq=False)
class Target:
    """``check`` raises for bytes of which the property does not hold; ``grammar`` makes some that are nearly good.

    ``pieces`` are what mutations put in. For n bytes a check may make ``base`` + ``slope`` · n calls, and use as many
    bytes of memory, ``room`` times that: it is linear, or it is a finding.
    """

    name: str
    check: Callable[[bytes], object]
    grammar: SearchStrategy[bytes]
    pieces: tuple[bytes, ...]
    base: int = 20_000
    slope: int = 100
    room: int = 100
    long: int = 64 * 1024
    """Bytes of the inputs that are one piece over and over."""

    @property
    def corpus(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted((CORPUS / self.name).iterdir())]

    def keep(self, data: bytes, name: str) -> Path:
        """Write a finding to the corpus, where every run of the tests will try it."""
        file = CORPUS / self.name / name
        file.write_bytes(data)
        return file


def check_bounds(target: Target, data: bytes) -> None:
    """The property, and that calls and memory stay in their bounds."""
    bound = target.base + target.slope * len(data)
    with counting() as count, measuring() as peak:
        target.check(data)
    assert count() <= bound, f"{count()} calls for {len(data)} bytes"
    assert peak() <= bound * target.room, f"{peak()} bytes of memory for {len(data)} bytes"


def check_time(target: Target, data: bytes, most: float = 3.0) -> None:
    """The property, in CPU time that a linear reading stays far below: within one call of C nothing can be counted."""
    before = time.process_time()
    target.check(data)
    took = time.process_time() - before
    assert took < most, f"{took:.1f} s for {len(data)} bytes"


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """How many functions are called, those of C too."""
    calls = 0

    def called(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(before)


@contextmanager
def measuring() -> Iterator[Callable[[], int]]:
    """The most memory that was in use at once, above what was before."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def mutated(data: bytes, others: list[bytes], pieces: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Some changes, one after the other: of bits, of bytes, of lines, and by what other files have."""
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
        match chance.randrange(8):
            case 0:
                data = data[:at] + chance.choice(pieces) + data[at:]
            case 1:
                piece = chance.choice(pieces)
                data = data[:at] + piece + data[at + len(piece) :]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]
            case 4:
                data = data[:at] + data[at:end] * chance.choice((2, 3, 50, 500)) + data[end:]
            case 5:
                other = chance.choice(others)
                data = data[:at] + other[chance.randrange(len(other) + 1) :]
            case 6:
                lines = re.split(rb"(?<=\n)", data)
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                data = b"".join(lines)
            case _:
                data = data[:at] + bytes((chance.randrange(256),)) + data[end:]
    return data[:LONGEST]


def smaller(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """A shorter one that fails too, found by leaving out ever smaller pieces."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
