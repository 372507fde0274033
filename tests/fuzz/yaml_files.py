"""Files of the configuration."""

from __future__ import annotations

from config.test_anything import WORDS
from config.test_anything import check as check_files
from hypothesis import strategies as st

from fuzz.target import Target


def check(data: bytes) -> None:
    """A configuration, or a list of problems, each with its place and in printable words."""
    check_files(data)


PIECES = (
    *(word.encode() for word in WORDS),
    b"[" * 50,
    b"{a: " * 50,
    b"- " * 50,
    b"&a [*a]",
    b"? " * 50,
    b"!!python/object:os.system ",
)
TARGET = Target(
    "yaml",
    check,
    st.lists(st.sampled_from(WORDS), max_size=40).map(lambda words: "".join(words).encode()),
    PIECES,
    base=300_000,
    slope=5_000,
    room=60,
    long=8 * 1024,
)
