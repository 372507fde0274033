"""Every test of the wire is one of the states of its connections too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.state_tables import held_to_the_tables

from apigw import is_compiled


@pytest.fixture(autouse=True, scope="session")
def _legal_states() -> Iterator[None]:
    if is_compiled():  # nobody can put a function in place of a method there
        yield
        return
    with held_to_the_tables():
        yield
