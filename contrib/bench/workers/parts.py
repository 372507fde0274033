"""The measurements of ``workers``, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from attrs import evolve, frozen

from bench import reload
from bench.figures import Verdict
from bench.ground import Ground
from bench.part import Part
from bench.programs import NotStarted, Running
from bench.result import NoResult
from bench.rounds import CONNECTIONS, start_origin
from bench.workers import admitted, changes, commit, cost, death, evenly, weight


@frozen
class Asked:
    """``rounds`` and ``seconds`` are those of ``cost`` and ``limit``; ``reloads``, ``upgrades`` and ``fresh`` (new
    connections a second) those of ``changes``; ``rate`` is of requests a second while workers are killed."""

    rounds: int = 20
    seconds: int = 2
    connections: int = CONNECTIONS
    reloads: int = 20
    upgrades: int = 1
    fresh: float = 2_000.0
    rate: float = 3_000.0


FRESH_WHILE_KILLED = 500.0
"""New connections a second, so that the new worker has something to accept at once."""


WAITING, WAITED_FOR = 4, 20
"""Workers, and reloads of theirs during which the longest wait is looked for."""


def _cost(ground: Ground, origin: Running, asked: Asked) -> Part:
    return cost.of_workers(ground, origin, asked.rounds, asked.seconds, asked.connections)


def _limit(ground: Ground, origin: Running, asked: Asked) -> Part:
    return cost.of_limit(ground, origin, asked.rounds, asked.seconds, asked.connections)


def _only(
    check: Callable[[Ground, Running, Asked], list[Verdict]], name: str, title: str
) -> Callable[[Ground, Running, Asked], Part]:
    def run(ground: Ground, origin: Running, asked: Asked) -> Part:
        return Part(name, title, "", {}, check(ground, origin, asked))

    return run


PARTS: Mapping[str, Callable[[Ground, Running, Asked], Part]] = {
    "weight": _only(lambda ground, _, __: weight.check(ground), "weight", "Private memory"),
    "evenly": _only(lambda ground, origin, _: evenly.check(ground, origin), "evenly", "Even load"),
    "admitted": _only(
        lambda ground, origin, asked: admitted.check(ground, origin, asked.connections),
        "admitted",
        "A limit over all workers",
    ),
    "commit": _only(lambda ground, origin, _: commit.check(ground, origin), "commit", "One moment for a reload"),
    "death": _only(
        lambda ground, origin, asked: death.check(ground, origin, asked.rate, FRESH_WHILE_KILLED),
        "death",
        "A worker that is killed",
    ),
    "changes": _only(
        lambda ground, origin, asked: changes.check(ground, origin, asked.reloads, asked.upgrades, asked.fresh),
        "changes",
        "Reloads and upgrades under new connections",
    ),
    "waits": _only(
        lambda ground, origin, _: asyncio.run(reload.waits(ground, origin, WAITING, WAITED_FOR)),
        "waits",
        "The longest wait during reloads",
    ),
    "limit": _limit,
    "cost": _cost,
}
"""In the order in which they run: the longest last. With what is asked by default, each takes three minutes at most."""


def run(names: Sequence[str], ground: Ground, asked: Asked) -> Iterator[Part]:
    """What one has started is ended before the next begins; one that is broken off does not take the others with it."""
    for name in names or PARTS:
        with ExitStack() as stack:
            own = evolve(ground, stack=stack)
            ground.say(name)
            began = time.monotonic()
            try:
                origin = start_origin(own.cores.load, own.directory, stack, own.say)
                part = PARTS[name](own, origin, asked)
            except (NoResult, NotStarted, LookupError, OSError) as error:
                why = str(error) or repr(error)
                part = Part(name, name, "", {}, [Verdict(f"{name} can be measured", False, why, "a result")])
        ground.say(f"{name} has taken {time.monotonic() - began:.0f} s")
        yield part
