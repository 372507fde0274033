"""Holds every change of state of an HTTP/1.1 connection against the tables of ``wire.http1.states``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

import pytest

from apigw.wire.http1.answer import AnswerWriter
from apigw.wire.http1.connection import ClientConnection
from apigw.wire.http1.states import READING, WRITING

Changes = set[tuple[int, int]]


@contextmanager
def held_to_the_tables() -> Iterator[tuple[Changes, Changes]]:
    """Meanwhile a change that the tables do not allow raises. Gives those of reading and of writing that were made."""
    reading: Changes = set()
    writing: Changes = set()
    with pytest.MonkeyPatch.context() as patch:
        for kind, state, table, made in (
            (ClientConnection, "_state", READING, reading),
            (AnswerWriter, "state", WRITING, writing),
        ):
            patch.setattr(kind, state, _checked(state, table, made), raising=False)
        yield reading, writing


def _checked(attribute: str, table: Mapping[int, Set[int]], made: Changes) -> property:
    """In place of the attribute: each assignment is held against the table."""
    kept = f"{attribute} as it is"

    def change(self: Any, state: int) -> None:
        before = self.__dict__.get(kept, state)
        if state != before:
            assert state in table[before], f"{attribute} {state} follows on {before}"
            made.add((before, state))
        self.__dict__[kept] = state

    return property(lambda self: self.__dict__[kept], change)
