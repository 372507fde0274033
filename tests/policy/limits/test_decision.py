"""One decision out of several limits, and what the client reads of it."""

from __future__ import annotations

from support.limits import NOON, limit

from apigw.policy.limits.arithmetic import SECOND, Decision, Limit, Standing, decide


def at(one: Limit, used: int, resets: int, passes: int = 0) -> Standing:
    """How a limit stands; times are seconds after noon."""
    return Standing(one, 0, used, (NOON + resets) * SECOND, (NOON + passes) * SECOND)


def test_the_tightest_limit_speaks_for_all() -> None:
    """Of several limits the headers show the least that remains, and of several refusals the longest wait."""
    wide, narrow, slow = limit(9, 60), limit(3, 5), limit(3, 600)
    now = NOON * SECOND
    for standings in ([at(wide, 1, 50), at(narrow, 1, 2)], [at(narrow, 1, 2), at(wide, 1, 50)]):
        assert decide(standings, now, 1, 0) == Decision(True, narrow, 1, NOON + 2, 0)
    for standings in ([at(narrow, 1, 2), at(slow, 1, 50)], [at(slow, 1, 50), at(narrow, 1, 2)]):
        assert decide(standings, now, 1, 0) == Decision(True, slow, 1, NOON + 50, 0)
    for standings in (
        [at(wide, 0, 2), at(narrow, 3, 2, 2), at(slow, 3, 50, 50)],
        [at(slow, 3, 50, 50), at(narrow, 3, 2, 2), at(wide, 0, 2)],
    ):
        assert decide(standings, now, 1, 0) == Decision(False, slow, 0, NOON + 50, 50)


def test_a_look_that_counts_nothing_leaves_one_more() -> None:
    """What remains includes the request that was not counted."""
    one = limit(3)
    assert decide([at(one, 1, 60)], NOON * SECOND, 0, 0) == Decision(True, one, 2, NOON + 60, 0)


def test_a_wait_is_rounded_up() -> None:
    """`Retry-After` and the reset are whole seconds, never too early, and a wait is at least one second."""
    one = limit(3)
    for late, wait, reset in ((0, 2, 2), (1, 2, 2), (999_999, 2, 2), (1_000_000, 1, 2), (1_999_999, 1, 2)):
        standing = Standing(one, 0, 3, NOON * SECOND + 1_500_000, (NOON + 2) * SECOND)
        decision = decide([standing], NOON * SECOND + late, 1, 0)
        assert (decision.retry_after, decision.reset) == (wait, NOON + reset)


def test_headers() -> None:
    """What a client is told, allowed and refused."""
    one = limit(3)
    assert Decision(True, one, 2, NOON + 60, 0).headers == [
        (b"x-ratelimit-limit", b"3"),
        (b"x-ratelimit-remaining", b"2"),
        (b"x-ratelimit-reset", b"%d" % (NOON + 60)),
    ]
    assert Decision(False, one, 0, NOON + 61, 30).headers == [
        (b"x-ratelimit-limit", b"3"),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"%d" % (NOON + 61)),
        (b"retry-after", b"30"),
    ]
