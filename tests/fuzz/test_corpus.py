"""Everything that was ever found, or is worth changing, is read as it should be."""

from __future__ import annotations

import pytest

from fuzz.every import TARGETS
from fuzz.target import CORPUS, check_bounds


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """Each target's property holds of each file, in linear time and memory."""
    target = TARGETS[name]
    assert target.corpus
    for data in target.corpus:
        assert len(data) <= 8192, "a small file does as well"
        try:
            check_bounds(target, data)
        except Exception as error:
            error.add_note(f"of {data!r}")
            raise


def test_every_folder_has_a_target() -> None:
    """No file of the corpus is forgotten."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
