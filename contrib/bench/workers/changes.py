"""Reloads and upgrades under new connections: not one fails."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from bench import nginx
from bench.arriving import Arriving
from bench.figures import Verdict
from bench.ground import Ground
from bench.load import explain
from bench.programs import Document, Place, Running
from bench.result import quantile
from bench.scenarios import BARE, USER_ROUTE, document
from bench.workers.several import Several, several, with_workers

WORKERS = 4


@frozen
class Outcome:
    """``took`` are the seconds of each change that took effect; ``rate`` is of answered requests, each over a
    connection of its own."""

    reloads: int
    upgrades: int
    reloads_took: list[float]
    upgrades_took: list[float]
    answered: int
    failed: int
    rate: float
    p99: float


def _generation(place: Place, number: int) -> Document:
    return document(place, (USER_ROUTE, {"path": f"/generation/{number}", "service": "origin"}))


def schedule(reloads: int, upgrades: int) -> list[str]:
    """What is done in turn: the upgrades stand evenly between the reloads."""
    done: list[str] = []
    for number in range(reloads):
        done.append("reload")
        if (number + 1) * upgrades // max(reloads, 1) > number * upgrades // max(reloads, 1):
            done += ["upgrade"] * ((number + 1) * upgrades // reloads - number * upgrades // reloads)
    return done if reloads else ["upgrade"] * upgrades


def check(ground: Ground, origin: Running, reloads: int, upgrades: int, rate: float) -> list[Verdict]:
    """One change after the other, each waited for, under ``rate`` new connections a second."""
    gateway = several(ground, WORKERS, (origin.port,), lambda place: _generation(place, 0))
    load = Arriving(gateway.address, BARE.path, nginx.ANSWER.encode(), fresh_rate=rate)
    running = threading.Thread(target=load.run)
    running.start()
    took: dict[str, list[float]] = {"reload": [], "upgrade": []}
    try:
        time.sleep(1.0)
        for number, change in enumerate(schedule(reloads, upgrades), 1):
            seconds = _reload(gateway, number) if change == "reload" else _upgrade(gateway)
            if seconds is None:
                ground.say(f"{change} {number} has not taken effect: {gateway.running.last_words()}")
                break
            took[change].append(seconds)
            if number % 10 == 0 or change == "upgrade":
                ground.say(f"{len(took['reload'])} reloads, {len(took['upgrade'])} upgrades")
        time.sleep(1.0)
    finally:
        load.stop()
        running.join()
    arrived = load.arrived
    outcome = Outcome(
        reloads,
        upgrades,
        took["reload"],
        took["upgrade"],
        arrived.answered,
        len(arrived.failures),
        arrived.answered / load.seconds,
        arrived.percentile(0.99),
    )
    return [verdict(outcome, rate, explain(arrived.failures))]


def _reload(gateway: Several, number: int) -> float | None:
    """Seconds until it has ended; None if it failed, or did not end."""
    place = gateway.running.place
    file = place.directory / "gateway.yaml"
    written = file.with_suffix(".new")
    whole = with_workers(_generation(place, number), WORKERS, gateway.admin[1])
    written.write_text(json.dumps(whole))
    os.replace(written, file)
    before = gateway.until(lambda _: True)
    began = time.monotonic()
    gateway.running.signal(signal.SIGHUP)
    after = gateway.until(lambda now: before is not None and now["reloads"] > before["reloads"])
    return time.monotonic() - began if after is not None and after["last_reload"] == "succeeded" else None


def _upgrade(gateway: Several) -> float | None:
    """The same, until all workers are those of the new program."""
    before = gateway.until(lambda _: True)
    if before is None:
        return None
    began = time.monotonic()
    gateway.running.signal(signal.SIGUSR2)
    after = gateway.until(lambda now: upgraded(before, now))
    return time.monotonic() - began if after is not None else None


def upgraded(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether an upgrade has ended, and none but the new workers is there."""
    old, new = ({row["process"] for row in status["workers"]} for status in (before, now))
    ended = now["upgrades"] > before["upgrades"] and not now["upgrading"]
    return ended and len(new) == len(old) and not old & new


def verdict(outcome: Outcome, rate: float, details: tuple[str, ...] = ()) -> Verdict:
    """A load that fell behind has not tested what it should: then it is not kept either."""
    done = len(outcome.reloads_took) == outcome.reloads and len(outcome.upgrades_took) == outcome.upgrades
    seen = (
        f"{len(outcome.reloads_took)} reloads ({_times(outcome.reloads_took)}), {len(outcome.upgrades_took)} upgrades "
        f"({_times(outcome.upgrades_took)}); {outcome.answered:,} connections, {outcome.rate:,.0f}/s, "
        f"{outcome.failed} failed, p99 {outcome.p99:.0f} ms"
    )
    kept = done and not outcome.failed and outcome.rate >= 0.95 * rate
    promise = f"{outcome.reloads} reloads and {outcome.upgrades} upgrades at {rate:,.0f} new connections/s"
    return Verdict(promise, kept, seen, "all take effect, none failed, the rate was reached", details)


def _times(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"median {quantile(ordered, 0.5):.2f} s, at worst {ordered[-1]:.2f}" if ordered else "none"
