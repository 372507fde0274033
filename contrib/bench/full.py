"""The parts of the full comparison, and how each is run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from attrs import evolve, frozen

from bench import compare, http2, latency, sweep
from bench.figures import Verdict
from bench.ground import Ground
from bench.part import Part
from bench.programs import NotStarted, Running, Variant
from bench.result import NoResult
from bench.rounds import CONNECTIONS, start_origin
from bench.scenarios import COMPARED, Scenario


@frozen
class Settings:
    """How long a part takes: ``seconds`` of load for each program in each of ``rounds``."""

    rounds: int
    seconds: int
    connections: int = CONNECTIONS


@frozen
class Asked:
    """What a run is asked for besides its settings. ``only`` names programs of the comparison, and empty means all;
    ``arrivals`` is how requests come where they are offered."""

    variants: Sequence[Variant]
    scenarios: Sequence[Scenario] = COMPARED
    only: Sequence[str] = ()
    arrivals: str = "random"


@frozen
class Kind:
    """``tool`` is the load that it needs; ``settings`` are those of a run that decides something."""

    run: Callable[[Ground, Running, Settings, Asked], Part]
    settings: Settings
    tool: str = "wrk"


KINDS: Mapping[str, Kind] = {
    "compare": Kind(
        lambda ground, origin, of, asked: compare.run(
            ground, origin, of.rounds, of.seconds, of.connections, asked.variants, asked.scenarios, asked.only
        ),
        Settings(5, 4),
    ),
    "latency": Kind(
        lambda ground, origin, of, asked: latency.run(
            ground, origin, of.rounds, of.seconds, of.connections, asked.arrivals
        ),
        Settings(3, 2),
    ),
    "http2": Kind(
        lambda ground, origin, of, _: http2.run(ground, origin, of.rounds, of.seconds, of.connections),
        Settings(3, 3),
        "h2load",
    ),
    "bodies": Kind(lambda ground, _, of, __: sweep.bodies(ground, of.rounds, of.seconds), Settings(3, 3)),
    "routes": Kind(
        lambda ground, origin, of, _: sweep.routes(ground, origin, of.rounds, of.seconds, of.connections),
        Settings(3, 2),
    ),
    "connections": Kind(
        lambda ground, origin, of, _: sweep.connections(ground, origin, of.rounds, of.seconds), Settings(3, 4)
    ),
    "endurance": Kind(
        lambda ground, origin, of, asked: latency.endure(ground, origin, of.seconds, of.connections, asked.arrivals),
        Settings(1, 60),
    ),
}
COMMANDS = {
    "compare": ("compare",),
    "latency": ("latency",),
    "http2": ("http2",),
    "sweep": ("bodies", "routes", "connections"),
    "endurance": ("endurance",),
    "full": tuple(KINDS),
}
"""Which parts a command runs."""


def settings(part: str, rounds: int | None, seconds: int | None, connections: int | None) -> Settings:
    """Those of the part, where no other is given."""
    own = KINDS[part].settings
    return Settings(rounds or own.rounds, seconds or own.seconds, connections or own.connections)


def run(parts: Sequence[str], ground: Ground, asked: Asked, chosen: Callable[[str], Settings]) -> Iterator[Part]:
    """One part after the other; what one has started is ended before the next begins, and one that is broken off does
    not take the others with it. Raises ``LookupError`` if none has its tool."""
    able = [name for name in parts if shutil.which(KINDS[name].tool)]
    for name in parts:
        if name not in able:
            ground.say(f"left out: {name} ({KINDS[name].tool} is not installed)")
    if not able:
        raise LookupError("there is nothing to measure with")
    for name in able:
        with ExitStack() as stack:
            own = evolve(ground, stack=stack)
            try:
                origin = start_origin(own.cores.load, own.directory, stack, own.say)
                part = KINDS[name].run(own, origin, chosen(name), asked)
            except (NoResult, NotStarted, OSError) as error:
                why = str(error) or repr(error)
                part = Part(name, name, "Broken off.", {}, [Verdict(f"{name} can be measured", False, why, "a result")])
        yield part
