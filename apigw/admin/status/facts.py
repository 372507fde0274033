"""``/status``: the state of the gateway in numbers, and of each of its workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from apigw import __version__
from apigw.admin.circuits import Row, row_of, summed
from apigw.admin.status.history import History, Sum
from apigw.admin.status.page import InSteps, document
from apigw.contract.machine import Answer, Machine
from apigw.errors import Overloaded
from apigw.ops.metrics import Lag
from apigw.ops.packing import pack
from apigw.process.current import Current
from apigw.process.reload import Progress
from apigw.proxy.pipeline import Pipeline
from apigw.wire.channel import ChannelFactory


class Facts:
    """What is shown. Times are seconds.

    Each worker answers ``status`` and ``page`` with what is its own; who is asked adds up.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        current: Current,
        pipeline: Pipeline,
        channels: ChannelFactory,
        reload: Progress,
        history: History,
        lag: Lag,
        directory: str,
        machine: Machine,
        in_steps: InSteps,
        in_thread: Callable[..., Deferred[Any]],
        load_of: Callable[[int], tuple[int, int]],
    ) -> None:
        """``load_of``: connections and requests in flight of a worker that does not answer."""
        self._seconds = seconds
        self._began = seconds()
        self._current = current
        self._pipeline = pipeline
        self._channels = channels
        self._reload = reload
        self._history = history
        self._lag = lag
        self._directory = directory
        self._machine = machine
        self._in_steps = in_steps
        self._in_thread = in_thread
        self._load_of = load_of
        machine.answers("status", lambda _: self._own())
        machine.answers("page", lambda _: self._own_page())

    def status(self) -> Deferred[dict[str, Any]]:
        """The document of ``/status``."""
        asked: Deferred[Any] = self._machine.ask("status", silent=True)
        return asked.addCallback(self._of_all).addCallback(_with_result)

    def page(self) -> Iterator[Any]:
        """The document of the status page, made in several steps; see ``page.Build``."""
        if self._machine.workers == 1:
            facts = self._of_all([Answer(self._machine.index, self._machine.process, self._own())])
            yield from document(facts, self._current.snapshot, self._history, self._circuits())
            return
        answers: list[Answer] = []
        yield self._machine.ask("page", silent=True).addCallback(answers.extend)
        answering = [each for each in answers if each.value is not None]
        sums: list[Sum] = []
        yield self._in_thread(Sum, [each.value["history"] for each in answering]).addCallback(sums.append)
        facts = self._of_all([evolve(each, value=each.value and each.value["status"]) for each in answers])
        own, others = self._machine.apart(answering)
        circuits = summed(own["circuits"], [each["circuits"] for each in others])
        yield from document(facts, self._current.snapshot, sums[0], circuits)

    def _own(self) -> dict[str, Any]:
        reload, now = self._reload, self._seconds()
        return {
            "uptime": round(now - self._began, 3),
            "connections": len(self._channels.channels),
            "in_flight": self._pipeline.in_flight,
            "lag": round(self._lag.worst, 6),
            "reload": {
                "succeeded": reload.succeeded,
                "ago": round(now - reload.ended_at, 3),
                "count": reload.count,
                "runs": reload.runs,
                "problems": list(reload.problems),
                "upgrades": reload.upgrades,
                "upgrading": reload.upgrading,
                "upgrade_problem": reload.upgrade_problem,
            },
        }

    def _own_page(self) -> Deferred[dict[str, Any]]:
        lines: list[bytes] = []
        done = self._in_steps(map(lines.append, self._history.lines()))
        packed = done.addCallback(lambda _: self._in_thread(pack, lines))
        return packed.addCallback(lambda text: {"status": self._own(), "circuits": self._circuits(), "history": text})

    def _circuits(self) -> list[Row]:
        return [row_of(upstream) for upstream in self._current.snapshot.upstreams.values()]

    def _of_all(self, answers: Sequence[Answer]) -> dict[str, Any]:
        rows = [self._row(each) for each in answers]
        # One that was started since has seen fewer.
        told = [each.value["reload"] for each in answers if each.value is not None]
        if not told:
            raise Overloaded("No worker has answered in time; try again in some seconds.")
        last = max(told, key=lambda reload: (reload["upgrades"], reload["count"]))
        result = {None: None, True: "succeeded", False: "failed"}[last["succeeded"]]
        return {
            "version": __version__,
            "uptime": max(row["uptime"] or 0.0 for row in rows),
            "connections": sum(row["connections"] for row in rows),
            "in_flight": sum(row["in_flight"] for row in rows),
            "last_reload": None if result is None else {"result": result, "ago": last["ago"]},
            # That which takes signals: with several workers, the one that has started them.
            "process": self._machine.process if self._machine.workers == 1 else os.getppid(),
            "directory": self._directory,
            "reloads": last["count"],
            "reloading": any(reload["runs"] for reload in told),
            "problems": last["problems"],
            "upgrades": last["upgrades"],
            "upgrading": any(reload["upgrading"] for reload in told),
            "upgrade_problem": last["upgrade_problem"],
            "workers": rows,
        }

    def _row(self, answer: Answer) -> dict[str, Any]:
        known = answer.value
        if known is None:
            connections, in_flight = self._load_of(answer.worker)
            known = {"connections": connections, "in_flight": in_flight, "uptime": None, "lag": None}
        return {
            "worker": answer.worker,
            "process": answer.process,
            "answers": answer.value is not None,
            **{name: known[name] for name in ("connections", "in_flight", "uptime", "lag")},
        }


def _with_result(facts: dict[str, Any]) -> dict[str, Any]:
    """``/status`` says only how the last reload ended."""
    last = facts["last_reload"]
    return {**facts, "last_reload": last and last["result"]}
