"""A worker is killed under load: how soon another serves in its place, and what the clients see."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from attrs import frozen

from apigw.shared.page import Page
from apigw.shared.slots import CONNECTIONS, PID, READY
from bench import nginx
from bench.arriving import Arrived, Arriving
from bench.figures import Verdict
from bench.ground import Ground
from bench.load import Failure, explain
from bench.programs import Running
from bench.scenarios import BARE
from bench.workers.several import several

WORKERS, KEPT = 4, 64
SERVES_WITHIN, MOST_P99 = 0.1, 30.0
"""Seconds; milliseconds, of those who were not connected to the killed worker."""

WINDOW = 1.0
"""Seconds from a kill on in which latencies count, so that quiet times do not hide it."""

PAUSE = 2.5
"""Seconds between two kills."""

LONGEST = 5.0


@frozen
class Death:
    """``at`` is ``time.monotonic()``; ``held`` the connections that the worker had; ``ready`` and ``serves`` the
    seconds until the new one was ready and had accepted a connection, infinite if it did not."""

    worker: int
    at: float
    held: int
    ready: float
    serves: float


def check(ground: Ground, origin: Running, rate: float, fresh: float) -> list[Verdict]:
    """Each worker is killed once, so that each is replaced at once: the master pauses only before it replaces one that
    dies again. Under ``rate`` requests a second over 64 connections, and ``fresh`` over new ones."""
    gateway = several(ground, WORKERS, (origin.port,))
    page = gateway.page()
    ground.stack.callback(page.close)
    load = Arriving(gateway.address, BARE.path, nginx.ANSWER.encode(), KEPT, rate, fresh)
    running = threading.Thread(target=load.run)
    running.start()
    try:
        time.sleep(PAUSE)
        deaths = []
        for worker in range(WORKERS):
            deaths.append(_kill(page, worker))
            time.sleep(PAUSE)
    finally:
        load.stop()
        running.join()
    ground.say(f"{load.arrived.answered / load.seconds:,.0f} requests/s, {load.arrived.fresh / load.seconds:,.0f} new")
    return verdicts(deaths, load.arrived)


def _kill(page: Page, worker: int) -> Death:
    slots = page.slots
    process, held = slots.get(worker, PID), slots.get(worker, CONNECTIONS)
    at = time.monotonic()
    os.kill(process, signal.SIGKILL)
    ready = _until(at, lambda: slots.get(worker, PID) not in (0, process) and slots.get(worker, READY) == 1)
    serves = _until(at, lambda: slots.get(worker, PID) not in (0, process) and slots.get(worker, CONNECTIONS) > 0)
    return Death(worker, at, held, ready, serves)


def _until(began: float, true: Callable[[], bool]) -> float:
    while time.monotonic() < began + LONGEST:
        if true():
            return time.monotonic() - began
        time.sleep(0.0005)
    return float("inf")


def lost_too_many(death: Death, failures: Sequence[Failure]) -> bool:
    """Whether others' exchanges were lost too: more than it had connections, or not by their end."""
    ends = all("the answer" in failure.kind for failure in failures)
    return len(failures) > death.held or not ends


def verdicts(deaths: Sequence[Death], arrived: Arrived) -> list[Verdict]:
    ready, serves = ([1e3 * getattr(death, name) for death in deaths] for name in ("ready", "serves"))
    windows = [(death.at, death.at + WINDOW) for death in deaths]
    failures = [arrived.failed(*window) for window in windows]
    beyond = len(arrived.failures) - sum(map(len, failures))
    too_many = any(lost_too_many(death, lost) for death, lost in zip(deaths, failures, strict=True))
    lost = ", ".join(f"{len(lost)} of {death.held}" for death, lost in zip(deaths, failures, strict=True))
    p99 = [arrived.percentile(0.99, *window) for window in windows]
    return [
        Verdict(
            "a worker killed under load: another serves",
            max(serves) <= SERVES_WITHIN * 1e3,
            f"ready after {_list(ready)} ms, has accepted after {_list(serves)}",
            f"within {SERVES_WITHIN * 1e3:.0f} ms",
        ),
        Verdict(
            "a worker killed under load: what is lost",
            not beyond and not too_many,
            f"{lost} connections had a request that failed; {beyond} others failed",
            "its own exchanges alone",
            explain(arrived.failures),
        ),
        Verdict(
            f"a worker killed under load: p99 of the others within {WINDOW:g} s",
            max(p99) < MOST_P99,
            f"{_list(p99)} ms",
            f"less than {MOST_P99:.0f} ms",
        ),
    ]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
