"""Every test of the wire is one of the states of its connections too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.state_tables import HTTP1, HTTP2, held_to

from apigw import is_compiled


@pytest.fixture(autouse=True, scope="session")
def _legal_states() -> Iterator[None]:
    if is_compiled():  # nobody can put a function in place of a method there
        yield
        return
    with held_to(HTTP1), held_to(HTTP2):
        yield
