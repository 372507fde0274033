"""How exchanges are shared out among targets."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigw import is_compiled
from apigw.config.model import Target as TargetConfig
from apigw.upstream.balancing import BOUND, Balancer, Hash, LeastRequests, RoundRobin, interleave
from apigw.upstream.target import Target

pytestmark = pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")


def targets_of(*weights: int) -> list[Target]:
    pool: Any = None
    return [
        Target(TargetConfig("http", f"10.0.0.{index + 1}", 80, weight), pool) for index, weight in enumerate(weights)
    ]


def balancers() -> list[Balancer]:
    return [RoundRobin(), LeastRequests(Random(1).random), Hash()]


EACH = pytest.mark.parametrize("balancer", balancers(), ids=lambda each: type(each).__name__)


def chosen(balancer: Balancer, targets: list[Target], times: int = 1000) -> list[int]:
    """How often each is chosen, by requests of different keys that end at once."""
    counts: Counter[Target | None] = Counter(balancer.choose(b"key %d" % number, ()) for number in range(times))
    return [counts[target] for target in targets]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_rotation_is_fair_and_even(weights: list[int]) -> None:
    """A target gets its weight, and at no time is two exchanges away from its share."""
    targets = targets_of(*weights)
    rotation = interleave(targets)
    total = sum(weights)
    counts = Counter(rotation)
    for target in targets:
        assert counts[target] * total == target.weight * len(rotation)
        for length in range(len(rotation) + 1):
            assert abs(rotation[:length].count(target) - length * target.weight / total) < 2


def test_large_weights_cost_no_memory() -> None:
    """Equal ones are one turn each; others are rounded."""
    equal = targets_of(1_000_000, 1_000_000)
    assert interleave(equal) == equal
    assert len(interleave(targets_of(65535, 1, 30000))) < 5000


@EACH
def test_a_target_of_weight_0_gets_no_requests(balancer: Balancer) -> None:
    targets = targets_of(1, 0, 1)
    balancer.use(targets)
    assert chosen(balancer, targets)[1] == 0


@EACH
def test_one_that_is_not_available_or_excluded_gets_none(balancer: Balancer) -> None:
    """The others have its share; without any, there is none."""
    targets = targets_of(1, 1, 1)
    balancer.use(targets)
    targets[1].available = False
    balancer.changed()
    assert min(chosen(balancer, targets)[::2]) > 300
    assert balancer.choose(b"a", (targets[0],)) is targets[2]
    assert balancer.choose(b"a", (targets[0], targets[2])) is None
    balancer.use([])
    assert balancer.choose(b"a", ()) is None


@EACH
def test_requests_go_by_weight(balancer: Balancer) -> None:
    targets = targets_of(1, 2, 3)
    balancer.use(targets)
    counts = chosen(balancer, targets, 6000)
    assert counts == pytest.approx([1000, 2000, 3000], rel=0.25 if isinstance(balancer, Hash) else 0.1)


def test_the_less_busy_of_two_gets_the_request() -> None:
    """Relative to its weight; the busiest of all gets none."""
    targets = targets_of(1, 1, 1)
    balancer = LeastRequests(Random(1).random)
    balancer.use(targets)
    targets[0].load, targets[1].load = 9, 5
    counts = chosen(balancer, targets, 3000)
    assert counts[0] == 0
    assert counts[2] == pytest.approx(2000, rel=0.1)
    targets = targets_of(1, 3)
    balancer.use(targets)
    targets[0].load, targets[1].load = 2, 5
    for _ in range(50):
        assert balancer.choose(b"", ()) in (targets[1], targets[0])
    assert chosen(balancer, targets, 100)[0] < 20


def test_a_key_has_a_target() -> None:
    """The same in every process; it changes only if that target goes."""
    targets = targets_of(1, 1, 1, 1)
    balancer, other = Hash(), Hash()
    balancer.use(targets)
    other.use(targets[::-1])
    keys = [b"key %d" % number for number in range(1000)]
    before = {key: balancer.choose(key, ()) for key in keys}
    assert before == {key: other.choose(key, ()) for key in keys}
    balancer.use(targets[:3])
    after = {key: balancer.choose(key, ()) for key in keys}
    assert all(after[key] is before[key] for key in keys if before[key] is not targets[3])
    moved = Counter(after[key] for key in keys if before[key] is targets[3])
    assert len(moved) == 3


def test_a_changed_weight_moves_only_as_many_keys_as_it_must() -> None:
    targets = targets_of(10, 10, 10, 10)
    balancer = Hash()
    balancer.use(targets)
    keys = [b"key %d" % number for number in range(2000)]
    before = {key: balancer.choose(key, ()) for key in keys}
    targets[0].weight = 5
    balancer.use(targets)
    moved = [key for key in keys if balancer.choose(key, ()) is not before[key]]
    assert len(moved) / len(keys) < 0.2


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 3)])
def test_no_target_has_more_than_its_bound(weights: tuple[int, ...]) -> None:
    """A key that everybody asks for is shared out, when its target has 1.25 times the average."""
    targets = targets_of(*weights)
    balancer = Hash()
    balancer.use(targets)
    for number in range(1, 201):
        target = balancer.choose(b"hot", ())
        assert target is not None
        target.load += 1
        balancer.load += 1
        for each in targets:
            assert each.load <= int(BOUND * number * each.weight / sum(weights)) + 1


def test_of_two_workers_that_count_together_one_sees_the_load_of_the_other() -> None:
    """What is in flight from others counts, though this worker has nothing."""
    targets = targets_of(1, 1)
    balancer = Hash()
    balancer.use(targets)
    first = balancer.choose(b"key", ())
    assert first is not None
    first.load = balancer.load = 8
    assert balancer.choose(b"key", ()) is not first
