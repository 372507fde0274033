# Compiled: see docs/decisions/compiled.md
"""Sliding logs in the shared page, and what becomes of one for which there is no room: a sliding counter.

The state of a log is the number of its stamps, the word of the oldest and that of the newest. Stamps are in the words
of chunks, in order; the entry's ``until`` is a span after the newest. The state of a counter is its counts; its
``until`` is a span after the end of the window that they are of.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from apigw.policy.limits.arithmetic import Limit, Standing, both, weigh
from apigw.shared.locks import STRUCTURE
from apigw.shared.spot import Spot
from apigw.shared.table import CELL, COUNTER, FIRST, LAST, LINK, LOG, STATE, UNTIL, Table

KEPT_WHOLE: Final = 64
"""For a log of up to so many stamps others leave when its stripe is full. A longer one becomes a counter then."""

COUNTS: Final = STATE


def look_counter(limit: Limit, spot: Spot, now: int) -> Standing:
    """Within a window the time is that of the worker that asks, which may be a little behind that of another."""
    line = spot.line
    counts: int = line[COUNTS]
    # After the counts, and written before them: without the lock, those of the window before are taken for this one's,
    # and so are too many. The other way they could be too few.
    until: i64 = line[UNTIL]
    spot.until = until
    span: i64 = limit.span
    return weigh(limit, until - span - span, counts, now)


def count_counter(table: Table, spot: Spot, standing: Standing) -> None:
    line = spot.line
    over: i64 = standing.resets + standing.limit.span
    if over != spot.until:  # another window than the counts in the entry are of
        table.locks.writes(spot.lock, spot.cell)
        line[UNTIL] = over
    line[COUNTS] = standing.counts + 1


def look_log(table: Table, limit: Limit, spot: Spot, now: i64) -> Standing:
    """The standing; its ``counts`` are the word of the oldest stamp in the window."""
    words, line = table.words, spot.line
    span: i64 = limit.span
    until: i64 = line[UNTIL]
    clock = until - span
    if now > clock:
        clock = now
    gone = clock - span
    if until - span <= gone:
        return Standing(limit, clock, 0, clock + span, 0)
    at: i64 = line[FIRST]
    used: i64 = line[STATE]
    oldest: i64 = words[at]
    if oldest <= gone:
        newest: i64 = line[LAST]
        while oldest <= gone:
            passed = _passed(words, at, newest, gone)
            used -= passed
            at = _step(words, at, passed)
            oldest = words[at]
    number: i64 = limit.limit
    passes: i64 = 0
    if used >= number:
        blocking: i64 = words[_step(words, at, used - number)]
        passes = blocking + span
    return Standing(limit, clock, used, oldest + span, passes, at)


def count_log(table: Table, spot: Spot, standing: Standing) -> None:
    """One more stamp, from the result of ``look_log``. Stamps that have left the window are forgotten."""
    words, line, locks, cell = table.words, spot.line, table.locks, spot.cell
    clock: i64 = standing.clock
    used: i64 = standing.used
    first: i64 = line[FIRST]
    last: i64 = line[LAST]
    oldest: i64 = standing.counts
    if not used:
        locks.writes(spot.lock, STRUCTURE)
        table.free_after(spot.stripe, first, last)
        oldest = last = (first & ~7) + 1
    elif last & 7 < 7:
        locks.writes(spot.lock, cell if oldest & ~7 == first & ~7 else STRUCTURE)
        table.free_before(spot.stripe, first, oldest)
        last += 1
    else:
        locks.writes(spot.lock, STRUCTURE)
        table.free_before(spot.stripe, first, oldest)
        line[FIRST] = first = oldest
        chunk = table.free_cell(spot.stripe)
        if not chunk and used < KEPT_WHOLE:
            chunk = table.cell(spot.stripe, clock, cell)
        if not chunk:
            _become_counter(table, spot, standing)
            return
        words[chunk] = 0
        words[last & ~7] = chunk << LINK
        last = chunk + 1
    words[last] = clock
    line[UNTIL] = clock + standing.limit.span
    line[STATE] = used + 1
    if first != oldest:
        line[FIRST] = oldest
    line[LAST] = last


def glance(table: Table, limit: Limit, spot: Spot, now: int) -> Standing:
    """The standing without the lock, while another may be about to count one more. Of a log it may be too much, by
    what has left the window since it was counted last."""
    if not table.glance(spot):
        return limit.look(None, now)
    if spot.kind != LOG:
        return look_counter(limit, spot, now)
    line = spot.line
    until: i64 = line[UNTIL]
    used: i64 = line[STATE] if now < until else 0
    return Standing(limit, now, used, now + limit.span, now + 1 if used >= limit.limit else 0)


def begin_log(table: Table, spot: Spot, standing: Standing) -> None:
    """The first stamp, in an entry without chunks. Where there is no room for one it is a counter."""
    words, line = table.words, spot.line
    clock: i64 = standing.clock
    table.locks.writes(spot.lock, STRUCTURE)
    chunk = table.cell(spot.stripe, clock, spot.cell)
    if not chunk:
        table.change_kind(spot, COUNTER)
        count_counter(table, spot, weigh(standing.limit, standing.clock, 0, standing.clock))
        return
    words[chunk] = 0
    words[chunk + 1] = clock
    line[UNTIL] = clock + standing.limit.span
    line[STATE] = 1
    line[FIRST] = chunk + 1
    line[LAST] = chunk + 1
    table.change_kind(spot, LOG)


def _become_counter(table: Table, spot: Spot, standing: Standing) -> None:
    """Count what is in the window by the two windows of a counter, and one more."""
    words, cell = table.words, spot.cell
    limit, clock = standing.limit, standing.clock
    begins: i64 = clock - clock % limit.span
    at: i64 = standing.counts
    newest: i64 = spot.line[LAST]
    previous: i64 = 0
    stamp: i64 = words[at]
    while stamp < begins and previous < standing.used:
        passed = _passed(words, at, newest, begins - 1)
        previous += passed
        if previous < standing.used:
            at = _step(words, at, passed)
            stamp = words[at]
    table.free_chunks(spot.stripe, cell)
    table.change_kind(spot, COUNTER)
    current = standing.used - previous
    count_counter(table, spot, weigh(limit, clock, both(previous, current), clock))


def _passed(words: memoryview, at: i64, newest: i64, gone: i64) -> i64:
    """How many stamps from ``at`` on are at most ``gone``, as the one there is: all of its chunk, or that one."""
    chunk = at & ~7
    if chunk != newest & ~7:
        last: i64 = words[chunk + CELL - 1]
        if last <= gone:
            return CELL - (at & 7)
    return 1


def _step(words: memoryview, at: i64, stamps: i64) -> i64:
    """The word of the stamp that comes so many after the one at ``at``."""
    left = CELL - (at & 7)
    while stamps >= left:
        stamps -= left
        head: i64 = words[at & ~7]
        at = (head >> LINK) + 1
        left = CELL - 1
    return at + stamps
