"""The memory that a worker has for itself, with the configuration as shipped."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from attrs import evolve

from apigw.shared.slots import PID
from bench.figures import Verdict
from bench.ground import Ground
from bench.machine import MIB, PROC, private
from bench.programs import HOST, REPOSITORY, Place, free_port, start
from bench.workers.several import Several

WORKERS, RELOADS = 4, 3
MOST_AT_START, MOST_AFTER = 14 * MIB, 20 * MIB
SHIPPED = REPOSITORY / "etc"
SETTLES = 6.0
"""Seconds: what was replaced is freed in pieces, ticks have written to what was shared at the fork, and each target has
been checked once."""


def files() -> dict[str, str]:
    """The configuration as shipped, by path, but for the number of workers."""
    texts = {str(file.relative_to(SHIPPED)): file.read_text() for file in sorted(SHIPPED.rglob("*")) if file.is_file()}
    texts["gateway.yaml"] = texts["gateway.yaml"].replace("workers: auto", f"workers: {WORKERS}")
    return texts


def check(ground: Ground) -> list[Verdict]:
    admin = free_port()

    def shipped(place: Place) -> dict[str, str]:
        for path in files():
            (place.directory / path).parent.mkdir(parents=True, exist_ok=True)
        return files()

    def argv(place: Place) -> list[str]:
        listeners = [f"APIGW_LISTEN=tcp:{place.port}:interface={HOST}", f"APIGW_ADMIN=tcp:{admin}:interface={HOST}"]
        return ["env", *listeners, *program.argv(place)]

    program = ground.variant.program(lambda _: {}, "shipped")
    shipped_program = evolve(program, executable="env", argv=argv, files=shipped)
    gateway = Several(start(shipped_program, ground.cores.both, ground.directory, ground.stack), (HOST, admin))
    time.sleep(SETTLES)
    at_start = _private(gateway)
    for number in range(1, RELOADS + 1):
        gateway.running.signal(signal.SIGHUP)
        if gateway.until(lambda status, number=number: status["reloads"] == number) is None:  # type: ignore[misc]
            raise TimeoutError(f"reload {number} did not end: {gateway.running.last_words()}")
    if gateway.status()["last_reload"] != "succeeded":
        raise TimeoutError(f"a reload failed: {gateway.running.last_words()}")
    time.sleep(SETTLES)
    return [
        verdict("at start", at_start, MOST_AT_START),
        verdict(f"after {RELOADS} reloads", _private(gateway), MOST_AFTER),
    ]


def _private(gateway: Several) -> list[int]:
    """Bytes, of each worker. It is not asked for its process, as an idle one is not: the first question that it ever
    answers takes half a MiB."""
    page = gateway.page()
    try:
        workers = page.slots.ready(int(time.monotonic() * 1000))
        processes = [page.slots.get(worker, PID) for worker in workers]
    finally:
        page.close()
    if len(processes) != WORKERS:
        raise TimeoutError(f"only {len(processes)} workers are ready: {gateway.running.last_words()}")
    return [private((PROC / str(process) / "smaps_rollup").read_text()) for process in processes]


def verdict(when: str, sizes: Sequence[int], most: int) -> Verdict:
    """Judges the heaviest worker."""
    seen = ", ".join(f"{size / MIB:.1f}" for size in sizes) + " MiB"
    promise = f"private memory of each idle worker {when}, configuration as shipped"
    return Verdict(promise, max(sizes) <= most, seen, f"at most {most // MIB} MiB")
