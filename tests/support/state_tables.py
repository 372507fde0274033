"""Holds every change of state of an HTTP/1.1 connection or an HTTP/2 stream against the tables of its states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

import pytest

from apigw.wire.http1.answer import AnswerWriter
from apigw.wire.http1.connection import ClientConnection
from apigw.wire.http1.states import READING, WRITING
from apigw.wire.http2 import states as http2
from apigw.wire.http2.stream import HTTP2Stream

Changes = set[tuple[int, int]]
Table = tuple[type, str, Mapping[int, Set[int]]]
"""A class, its attribute, and the transitions."""
HTTP1: tuple[Table, Table] = ((ClientConnection, "_state", READING), (AnswerWriter, "state", WRITING))
HTTP2: tuple[Table, Table] = ((HTTP2Stream, "_reading", http2.READING), (HTTP2Stream, "_writing", http2.WRITING))


@contextmanager
def held_to(tables: tuple[Table, Table]) -> Iterator[tuple[Changes, Changes]]:
    """Meanwhile a change that the tables do not allow raises. Gives those of reading and of writing that were made."""
    reading: Changes = set()
    writing: Changes = set()
    with pytest.MonkeyPatch.context() as patch:
        for (kind, state, table), made in zip(tables, (reading, writing), strict=True):
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
