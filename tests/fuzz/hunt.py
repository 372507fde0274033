"""Looks for bytes of which a target's property does not hold: from its grammar, and by changing its corpus.

    python tests/fuzz/hunt.py [--seed N] [--seconds S] [--rounds R] [TARGET ...]

Each round has another seed, that of the first plus its number. A finding is made small, written to the corpus and
printed; the exit code is then 1. Where atheris is installed, and ``--seconds`` is given, it has half of the time.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "contrib")]

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402  # sys.path comes first

from fuzz.every import TARGETS  # noqa: E402
from fuzz.target import Target, check_bounds, check_time, mutated, smaller  # noqa: E402

EXAMPLES, MUTATIONS = 60, 180
"""Of each target in a round."""


class Finding(Exception):
    """The bytes of which the property does not hold, as few as were found. Its cause says how."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


def from_grammar(target: Target, number: int) -> None:
    failed: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.grammar)
    def run(data: bytes) -> None:
        try:
            check_bounds(target, data)
        except Exception:
            failed.append(data)
            raise

    try:
        run()
    except Exception as error:
        raise Finding(min(failed, key=len)) from error


def by_mutation(target: Target, number: int) -> None:
    chance = random.Random(number)
    corpus = target.corpus
    for _ in range(MUTATIONS):
        attempt(target, mutated(chance.choice(corpus), corpus, target.pieces, chance))


def of_great_length(target: Target) -> None:
    """Each piece over and over."""
    for piece in target.pieces:
        data = piece * (target.long // max(1, len(piece)))
        try:
            check_time(target, data)
        except Exception as error:
            attempt(target, data[:2048])
            raise Finding(data[:8192]) from error


def attempt(target: Target, data: bytes) -> None:
    try:
        check_bounds(target, data)
    except Exception as error:
        kind = type(error)
        raise Finding(smaller(data, lambda shorter: fails(target, shorter, kind))) from error


def fails(target: Target, data: bytes, kind: type[Exception]) -> bool:
    try:
        check_bounds(target, data)
    except Exception as error:
        return type(error) is kind
    return False


def report(target: Target, finding: Finding) -> None:
    traceback.print_exception(finding.__cause__ or finding)
    file = target.keep(finding.data, f"found-{sha256(finding.data).hexdigest()[:12]}")
    print(f"\n{target.name}: {finding.data[:400]!r}\nis kept as {file.relative_to(ROOT)}", flush=True)


def rounds(targets: list[Target], first: int, most: int | None, until: float) -> bool:
    """Whether nothing was found."""
    number = first
    while (most is None or number < first + most) and time.monotonic() < until:
        for target in targets:
            try:
                if number == first:
                    of_great_length(target)
                from_grammar(target, number)
                by_mutation(target, number)
            except Finding as finding:
                print(f"found with --seed {number} --rounds 1 {target.name}")
                report(target, finding)
                return False
        number += 1
    print(f"{number - first} rounds from seed {first}: nothing found")
    return True


def guided(targets: list[Target], number: int, seconds: float) -> bool:
    """By atheris, which follows what code is reached; each target in a process of its own."""
    for target in targets:
        each = str(max(1, round(seconds / len(targets))))
        command = [sys.executable, str(Path(__file__).with_name("guided.py")), target.name, str(number), each]
        if subprocess.run(command, check=False).returncode:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Looks for bytes that are read wrongly.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    print(f"seed {options.seed}", flush=True)
    seconds = options.seconds
    with_atheris = seconds is not None and importlib.util.find_spec("atheris") is not None
    until = time.monotonic() + (float("inf") if seconds is None else seconds / 2 if with_atheris else seconds)
    if not rounds(targets, options.seed, options.rounds, until):
        return 1
    return 0 if not with_atheris or guided(targets, options.seed, seconds / 2) else 1


if __name__ == "__main__":
    sys.exit(main())
