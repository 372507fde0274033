"""Periods on the command line."""

from __future__ import annotations

import pytest

from apigw.cli.periods import seconds


@pytest.mark.parametrize(
    ("text", "meant"), [("1s", 1), ("30m", 1800), ("12h", 43_200), ("99999d", 8_639_913_600), ("2678400s", 2_678_400)]
)
def test_what_is_written(text: str, meant: int) -> None:
    assert seconds(text) == meant


@pytest.mark.parametrize("text", ["", "0s", "1", "d", "-1h", "1.5h", "1 h", "1w", "100000d", "١h", "1h\n"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time: write it like 30m, 1h or 7d"):
        seconds(text)
