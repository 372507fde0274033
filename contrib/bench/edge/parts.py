"""The measurements of ``edge``, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from attrs import evolve, frozen

from bench.edge import bodies, calls, doors, http2, lasting
from bench.figures import Verdict
from bench.ground import Ground
from bench.part import Part
from bench.programs import NotStarted, Running
from bench.result import NoResult
from bench.rounds import start_origin


@frozen
class Asked:
    """``rounds`` of ``seconds`` for each program and each way in; ``posts`` of one client in a round of its own. With
    ``stream``, only one stream of so many seconds."""

    rounds: int = 3
    seconds: int = 2
    posts: int = 1_000
    stream: float = 0.0


PARTS: Mapping[str, Callable[[Ground, Running, Asked], Part]] = {
    "doors": lambda ground, origin, asked: doors.part(ground, origin, asked.rounds, asked.seconds),
    "h2-h2": lambda ground, origin, asked: http2.part(ground, origin, asked.rounds, asked.seconds),
    "bodies": lambda ground, _, asked: bodies.part(ground, asked.rounds, asked.seconds),
    "posts": lambda ground, origin, asked: bodies.posts_part(ground, origin, asked.posts),
    "unary": lambda ground, _, asked: calls.unary(ground, asked.rounds, asked.seconds),
    "streams": lambda ground, _, asked: calls.streams(ground, asked.rounds, asked.seconds),
}
TOOLS = {"doors": ("wrk", "h2load"), "h2-h2": ("wrk", "h2load"), "bodies": ("wrk",), "unary": ("h2load",)}


def _lasting(ground: Ground, _: Running, asked: Asked) -> Part:
    return Part("lasting", "A stream that lasts", "", {}, lasting.check(ground, asked.stream))


def run(names: Sequence[str], ground: Ground, asked: Asked) -> Iterator[Part]:
    """What one has started is ended before the next begins; one that is broken off does not take the others with it.
    One whose tool is not installed is named and left out."""
    chosen = {"lasting": _lasting} if asked.stream else {name: PARTS[name] for name in names or PARTS}
    for name, measure in chosen.items():
        if lacking := [tool for tool in TOOLS.get(name, ()) if shutil.which(tool) is None]:
            ground.say(f"left out: {name} ({', '.join(lacking)} is not installed)")
            continue
        with ExitStack() as stack:
            own = evolve(ground, stack=stack)
            ground.say(name)
            try:
                origin = start_origin(own.cores.load, own.directory, stack, own.say)
                part = measure(own, origin, asked)
            except (NoResult, NotStarted, LookupError, OSError) as error:
                why = str(error) or repr(error)
                part = Part(name, name, "", {}, [Verdict(f"{name} can be measured", False, why, "a result")])
        yield part
