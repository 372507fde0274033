"""``/circuits``: shows each service's circuit and targets, and lets operators open and close circuits.

Both ask all workers: what is shown is the machine's, and what is changed is changed in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from json import loads
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from apigw import errors
from apigw.admin.writes import Writes
from apigw.contract.machine import Answer, Machine
from apigw.contract.resource import Leaf, answer_later
from apigw.ops.audit_log import Audit, unaudited
from apigw.upstream.circuit import Circuit
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import NEVER
from apigw.wire.web_request import WebRequest

Row = dict[str, Any]
"""What is shown of a service; see ``row_of``."""

BADNESS = (None, "closed", "half-open", "open")
"""The states of circuits, the worst last."""

log = Logger()


class Circuits(Leaf):
    """GET: each service, its circuit and its targets. POST opens, closes or frees a circuit by hand."""

    def __init__(
        self,
        upstreams: Callable[[], Iterable[Upstream]],
        writes: Writes,
        machine: Machine,
        audit: Audit = unaudited,
    ) -> None:
        super().__init__()
        self._audit = audit
        self._upstreams = upstreams
        self._writes = writes
        self._machine = machine
        machine.answers("circuits", lambda _: [row_of(upstream) for upstream in self._upstreams()])
        machine.answers("circuit", self._act)

    def render_GET(self, request: WebRequest) -> int:
        asked: Deferred[Any] = self._machine.ask("circuits")
        return answer_later(request, asked.addCallback(self._shown))

    def render_POST(self, request: WebRequest) -> int:
        """A body such as ``{"service": "users", "action": "open"}``. Answers with the new state of the circuit."""
        self._writes.check(request)
        service, action = self._wanted(request.content.getvalue())
        log.warn(
            "circuit of {service}: {action} by hand, from {peer}",
            service=service,
            action=action,
            peer=request.peer.decode("ascii", "replace"),
        )
        self._audit("circuit", action, request.peer.decode("ascii", "replace"), service=service)
        asked: Deferred[Any] = self._machine.ask("circuit", {"service": service, "action": action})
        return answer_later(request, asked.addCallback(self._shown).addCallback(lambda shown: shown["circuits"][0]))

    def _shown(self, answers: Sequence[Answer]) -> dict[str, list[Row]]:
        return {"circuits": summed(*self._machine.apart(answers))}

    def _wanted(self, body: bytes) -> tuple[str, str]:
        try:
            document = loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or document.keys() != {"service", "action"}:
            raise errors.BadRequest('The body must be JSON such as {"service": "users", "action": "open"}.')
        service, action = document["service"], document["action"]
        if not isinstance(action, str) or action not in ACTIONS:
            raise errors.BadRequest(f"The action must be one of {', '.join(ACTIONS)}.")
        if not any(upstream.name == service and upstream.circuit is not None for upstream in self._upstreams()):
            raise errors.NotFound("No service of that name has a circuit breaker.")
        return service, action

    def _act(self, wanted: Mapping[str, str]) -> list[Row]:
        """Change the circuit in this worker. It may have none, while a reload is under way."""
        for upstream in self._upstreams():
            if upstream.name == wanted["service"] and upstream.circuit is not None:
                ACTIONS[wanted["action"]](upstream.circuit)
                return [row_of(upstream)]
        return []


ACTIONS: Mapping[str, Callable[[Circuit], None]] = {"open": Circuit.open, "close": Circuit.close, "free": Circuit.free}


def row_of(upstream: Upstream) -> Row:
    """The JSON object of a service. Times are seconds; ``state`` is null if it has no circuit breaker."""
    shown: Row = {"service": upstream.name, "state": None}
    if upstream.circuit is not None:
        status = upstream.circuit.status()
        shown |= {
            "state": str(status.state),
            "why": status.why,
            "since": _rounded(status.since),
            "retry_in": _rounded(status.retry_in),
            "failures": status.failures,
            "total": status.total,
            "forced": status.forced,
            "opened": status.opened,
        }
    return {**shown, "targets": [_target(target, upstream.counts, upstream.seconds()) for target in upstream.targets]}


def summed(own: Sequence[Row], others: Iterable[Sequence[Row]]) -> list[Row]:
    """The services of ``own`` for all workers, and the sums of their connections.

    A circuit is one for all workers. Where it is not, for want of room in the shared page, the worst is shown.
    """
    theirs = [{row["service"]: row for row in rows} for rows in others]
    return [reduce(_worse, (rows[row["service"]] for rows in theirs if row["service"] in rows), row) for row in own]


def _worse(one: Row, other: Row) -> Row:
    shown = dict(max(one, other, key=lambda row: BADNESS.index(row["state"])))
    theirs = {target["target"]: target for target in other["targets"]}
    shown["targets"] = [_both(target, theirs.get(target["target"])) for target in one["targets"]]
    return shown


def _both(one: Row, other: Row | None) -> Row:
    if other is None:
        return one
    return {
        **one,
        "healthy": one["healthy"] and other["healthy"],
        "available": one["available"] and other["available"],
        "connections": one["connections"] + other["connections"],
        "requests": None if one["requests"] is None else one["requests"] + (other["requests"] or 0),
    }


def _target(target: Target, counts: bool, now: float) -> Row:
    return {
        "target": target.name,
        "healthy": target.healthy,
        "available": target.healthy and not target.ejected,
        "ejected_for": _ejected_for(target, now),
        "weight": target.weight,
        "connections": target.pool.connections,
        "requests": target.busy if counts else None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _ejected_for(target: Target, now: float) -> float | None:
    """0 while a probe is wanted or under way."""
    if not target.ejected:
        return None
    return 0.0 if target.deadline == NEVER else _rounded(max(0.0, target.deadline - now))
