"""How exchanges are shared out among targets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw import is_compiled
from apigw.upstream.balancing import interleave

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_rotation_is_fair_and_even(weights: list[int]) -> None:
    """A target gets more or less than its weight, or all of it in one burst."""
    names: list[Any] = list(range(len(weights)))
    rotation: Any = interleave(names, weights)
    total = sum(weights)
    counts = Counter(rotation)
    for name, weight in zip(names, weights, strict=True):
        assert counts[name] * total == weight * len(rotation)
        # At no time is a target two exchanges away from its share.
        for length in range(len(rotation) + 1):
            assert abs(rotation[:length].count(name) - length * weight / total) < 2


def test_equal_weights_cost_no_memory() -> None:
    """Two targets of weight 1,000,000 make a list of two million."""
    names: Any = ["a", "b"]
    assert list(interleave(names, [1_000_000, 1_000_000])) == names
