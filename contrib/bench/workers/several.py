"""A gateway of several workers: how it is started, and how it is looked into.

What it tells by itself (/status, /metrics) needs an answer of each worker, which takes a while where they are busy. So
moments are read from the slots of the page that the workers share: the bench opens the page as the workers have it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

from attrs import frozen

from apigw.shared.page import Page
from bench.ground import Ground
from bench.load import Address
from bench.machine import PROC
from bench.programs import HOST, Document, Place, Program, Running, free_port, start
from bench.scenarios import document

LOCKS = ("gateway_shared_lock_waits_total", "gateway_shared_lock_misses_total")


@frozen(eq=False)
class Several:
    running: Running
    admin: Address

    @property
    def address(self) -> Address:
        return (HOST, self.running.port)

    def get(self, path: str) -> bytes:
        """What the admin listener answers. Raises ``OSError`` if it does not, with 200."""
        connection = HTTPConnection(*self.admin, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except HTTPException as error:
            raise ConnectionError(f"GET {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ConnectionError(f"GET {path}: {answer.status}")
        return body

    def status(self) -> Mapping[str, Any]:
        status: Mapping[str, Any] = json.loads(self.get("/status"))
        return status

    def until(self, true: Callable[[Mapping[str, Any]], bool], seconds: float = 60.0) -> Mapping[str, Any] | None:
        """The first status of which something is true; None if there is none in time. One that could not be had,
        because workers change, is asked for again."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            with suppress(OSError):
                status = self.status()
                if true(status):
                    return status
            time.sleep(0.05)
        return None

    def locks(self) -> Waits:
        """What was counted so far of the locks of the shared page."""
        text = self.get("/metrics").decode()
        return Waits(*(int(counter(text, name)) for name in LOCKS))

    def page(self) -> Page:
        """The shared page. Only for reading, and the caller closes it. Raises ``LookupError`` if there is none."""
        for entry in (PROC / str(self.running.session) / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry).startswith("/memfd:apigw"):
                    return Page.open(os.open(entry, os.O_RDWR | os.O_CLOEXEC))
        raise LookupError(f"{self.running.name} has no shared page")


@frozen
class Waits:
    """How often a lock of the shared page was not free at once, and how often not in time: a worker decided alone."""

    waits: int
    misses: int

    def since(self, before: Waits) -> Waits:
        return Waits(self.waits - before.waits, self.misses - before.misses)

    def __str__(self) -> str:
        return f"{self.waits:,} waits for a lock, {self.misses:,} in vain"


def counter(text: str, name: str) -> float:
    """The sum of the series of one name, in the text format of Prometheus; 0 if there is none."""
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name:
            total += float(value)
    return total


def several(
    ground: Ground,
    workers: int,
    origins: tuple[int, ...],
    config: Callable[[Place], Document] = document,
    name: str = "",
) -> Several:
    """A gateway of so many workers, each of which is ready. With several it may use both cores; see ``Cores.both``.

    Raises ``NotStarted``.
    """
    admin = free_port()
    program = ground.variant.program(lambda place: with_workers(config(place), workers, admin), name)
    return run(ground, program, admin, workers, origins)


def run(ground: Ground, program: Program, admin: int, workers: int, origins: tuple[int, ...] = ()) -> Several:
    """Start ``program``, which has its admin listener at ``admin``, and wait for its workers. Raises ``NotStarted``."""
    running = start(program, ground.cores.both, ground.directory, ground.stack, origins)
    gateway = Several(running, (HOST, admin))
    if gateway.until(lambda status: len(status["workers"]) == workers) is None:
        raise TimeoutError(f"{running.name}: {workers} workers are not ready: {running.last_words()}")
    return gateway


def with_workers(whole: Document, workers: int, admin: int) -> Document:
    """The same configuration, with workers and an admin listener."""
    more = {"workers": workers, "admin": f"tcp:{admin}:interface={HOST}"}
    return {**whole, "gateway": {**whole["gateway"], **more}}
