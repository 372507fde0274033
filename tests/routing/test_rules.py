"""What a configuration may say of routes."""

from __future__ import annotations

from itertools import product

from apigw.routing.pattern import Pattern, overlaps
from apigw.routing.rules import Patterns

ALL = [
    Pattern.parse("/" + "/".join([*(f":p{i}" if s == ":" else s for i, s in enumerate(segments)), *end]))
    for length in range(4)
    for segments in product(["a", "b", ":"], repeat=length)
    for end in ([], [""], ["*"])
    if segments or end
]


def test_a_set_of_patterns_says_what_asking_each_of_them_says() -> None:
    """A path in common with any of them is a path in common with the set."""
    for one, other in product(ALL, repeat=2):
        assert Patterns([one]).overlap(other) == (overlaps(one, other) != "never"), (one, other)
    for asked in ALL:
        few = ALL[::7]
        assert Patterns(few).overlap(asked) == any(overlaps(each, asked) != "never" for each in few)
    assert not Patterns([]).overlap(ALL[0])
