"""Holds every change of state of an HTTP/1.1 connection against the tables of ``wire.http1.states``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
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
            patch.setattr(kind, "_enter", _checked(kind._enter, state, table, made))
        yield reading, writing


def _checked(
    enter: Callable[[Any, int], None], attribute: str, table: Mapping[int, Set[int]], made: Changes
) -> Callable[[Any, int], None]:
    def checked(self: Any, state: int) -> None:
        before = getattr(self, attribute)
        if state != before:
            assert state in table[before], f"{attribute} {state} follows on {before}"
            made.add((before, state))
        enter(self, state)

    return checked
