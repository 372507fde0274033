"""The short-lived process that reads a new configuration (``reading.Reading`` starts it, and has the other end)."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import sys
import time
from typing import Any, NoReturn

from attrs import asdict

from apigw import __version__
from apigw.config.errors import ConfigError
from apigw.process import handover

INTERVAL = 0.5
STARVED = 0.1
"""It has had less than this share of a core in so many seconds."""


def main(told: dict[str, Any]) -> NoReturn:
    """Read and try out the configuration in ``told["directory"]``, and write the outcome to standard output.

    The outcome is a line of JSON with the ``version`` and ``code`` of this program, and unless it is the code that was
    told, ``routes``, ``size``, and so many bytes: a configuration, or where ``routes`` is null, its problems. With a
    configuration comes its ``outline``, or null.
    """
    _stand_back()
    gc.disable()  # there is no time to save memory in
    out = os.dup(1)
    os.dup2(2, 1)  # nothing that is printed by chance gets in between
    head: dict[str, Any] = {"version": __version__, "code": handover.code()}
    data = b""
    if head["code"] == told["code"]:
        read = _read(told["directory"])
        if isinstance(read, handover.Handover):
            data = read.data
            head |= {"routes": read.routes, "outline": read.outline and asdict(read.outline)}
        else:
            data, head["routes"] = read, None
        head["size"] = len(data)
    # Never closed: its end is that of the process.
    with open(out, "wb", closefd=False) as pipe:
        pipe.write(json.dumps(head).encode() + b"\n" + data)
    sys.stderr.flush()
    os._exit(0)  # without taking a thousand modules apart


def _stand_back() -> None:
    """Run only while a core has nothing else to do, unless that is too seldom.

    At any niceness it would keep a core for its slice of some 3 ms while a request waits (measured with Linux 6.18); a
    process of the class SCHED_IDLE is interrupted. On a machine that is busy all the time that one would never end.
    """
    spent = time.process_time()

    def judge(*_: object) -> None:
        nonlocal spent
        before, spent = spent, time.process_time()
        if spent - before < STARVED * INTERVAL:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # where containers may not
        return
    signal.signal(signal.SIGALRM, judge)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)


def _read(directory: str) -> handover.Handover | bytes:
    """The configuration, or its problems, pickled."""
    from twisted.internet.selectreactor import SelectReactor

    from apigw.config.load import load
    from apigw.process.rules import RULES
    from apigw.process.trial import try_out

    try:
        config = load(directory, os.environ, RULES)
        try_out(config, directory, SelectReactor())  # which never runs
    except ConfigError as error:
        return pickle.dumps(error.problems)
    return handover.pack(config)
