"""The start of the workers, before the master's reactor runs: whoever started the daemon waits until one serves."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable, MutableMapping

from apigw.process.children import how
from apigw.process.tree import CannotStart

DEATHS = 3
"""So many before the first worker is ready end the start: none of them will get further."""

WITHIN = 60.0
"""Seconds in which one must be ready: 10,000 routes take some 2 s."""

LOOK = 0.1
"""Seconds between two looks whether a signal ends it all."""

_PEEKED = 65536
_LONGEST_REASON = 8192

READY, FAILED = "ready", "failed"
"""The first thing that a worker says is one of these."""


def until_ready(
    started: MutableMapping[int, tuple[int, socket.socket]],
    again: Callable[[int], object],
    ending: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until one of the workers is ready, or it is ``ending`` before.

    ``started`` has the process and the control connection of each, by index. One that ends is taken out, and begun
    ``again``. Raises ``CannotStart`` with the last one's reason after ``DEATHS`` of them, or after ``WITHIN``.
    """
    deaths = 0
    late = time.monotonic() + WITHIN
    while not ending():
        if time.monotonic() > late:
            raise CannotStart(f"apigw: no worker was ready within {WITHIN:g} s")
        readable, _, _ = select.select([end for _, end in started.values()], [], [], LOOK)
        for index, (process, end) in list(started.items()):
            if end not in readable:
                continue
            said = _said(end)
            if said == "":
                return
            del started[index]
            end.close()
            _, status = os.waitpid(process, 0)
            deaths += 1
            if deaths == DEATHS:
                raise CannotStart(said or f"apigw: no worker could start: the last one {how(status)}")
            again(index)


def _said(end: socket.socket) -> str | None:
    """Why a worker has ended, None if it said nothing, and no text at all if it has not: it is ready.

    What it said remains to be read.
    """
    data = end.recv(_PEEKED, socket.MSG_PEEK)
    if not data:
        return None
    message = json.loads(data[4:].partition(b"\n")[0])
    return str(message["argument"]) if message["call"] == FAILED else ""


def fail(end: socket.socket, reason: str) -> None:
    """Say, before this worker ends, why it cannot start."""
    line = json.dumps({"call": FAILED, "id": 0, "argument": reason[:_LONGEST_REASON]}).encode() + b"\n"
    end.setblocking(True)
    end.sendall(len(line).to_bytes(4, "big") + line)
