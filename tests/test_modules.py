"""What every module of the program keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "apigw").rglob("*.py"))
MOST_LINES = 400


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(file: Path) -> None:
    """What is longer is two modules."""
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_a_type_error_that_is_ignored_has_its_reason() -> None:
    """The comment says which error, and why it is none."""
    for file in MODULES:
        for line in file.read_text().splitlines():
            if "type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z-]+\]  # \w", line), f"{file}: {line.strip()}"
