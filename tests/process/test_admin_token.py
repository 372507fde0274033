"""What an admin token may be."""

from __future__ import annotations

import pytest

from apigw.process.admin_token import parse


@pytest.mark.parametrize("bad", [b"", b"short", b"two words are no token at all", b"x" * 5_000])
def test_texts_that_are_no_token(bad: bytes) -> None:
    """Too short, too long, or more than one word."""
    with pytest.raises(ValueError):
        parse(bad)


def test_the_end_of_a_line_is_not_part_of_it() -> None:
    """As editors write it."""
    assert parse(b"a-token-of-at-least-16\n") == b"a-token-of-at-least-16"
