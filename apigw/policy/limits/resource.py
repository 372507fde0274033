"""``/limits``: the rate limits and their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from apigw.contract.machine import GONE, Answer, Machine
from apigw.contract.resource import Leaf, answer_later
from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.concurrent import ConcurrentLimit
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.series import LimitSeries
from apigw.wire.web_request import WebRequest


class Limits(Leaf):
    """``GET /limits``: each limit, how it is counted, and its number of keys and violations. It asks all workers."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def render_GET(self, request: WebRequest) -> int:
        asked: Deferred[Any] = self._machine.ask("limits")
        return answer_later(request, asked.addCallback(self._of_all))

    def _of_all(self, answers: Sequence[Answer]) -> dict[str, Any]:
        gone: Mapping[str, int] = next((each.value for each in answers if each.worker == GONE), {})
        return summed(*self._machine.apart(each for each in answers if each.worker != GONE), gone)


class Counted:
    """What one worker says of its limits. ``shared``: its store is that of all workers."""

    def __init__(
        self, limits: Sequence[Quota], store: LocalStore | RedisStore, series: LimitSeries, shared: bool = False
    ) -> None:
        self._limits = limits
        self._store = store
        self._series = series
        self._shared = shared

    def document(self, _: object = None) -> dict[str, Any]:
        store = self._store
        keys = store.keys()
        shown = [_limit(limit, store, keys, self._series.violations(limit)) for limit in self._limits]
        kept = {"kind": store.kind, "up": store.up, "keys": len(store), "fallbacks": self._series.fallbacks()}
        return {"store": kept, "limits": shown, "shared": self._shared}

    def counts(self) -> dict[str, int]:
        """What outlives this worker: the fallbacks, and the violations by the limit's id."""
        violations = {limit.id.hex(): self._series.violations(limit) for limit in self._limits}
        return {FALLBACKS: self._series.fallbacks(), **violations}


FALLBACKS = "fallbacks"


def summed(own: dict[str, Any], others: Sequence[dict[str, Any]], gone: Mapping[str, int] = {}) -> dict[str, Any]:
    """The answer for all workers. What refused and fell back is added up, and what is kept where it is not shared.

    Limits are those of ``own``; a worker that has another configuration counts for those that both have. ``gone`` are
    the ``counts`` of workers that are gone.
    """
    keep = max if own.pop("shared") else _add
    store = own["store"]
    store["up"] = all(each["store"]["up"] for each in (own, *others))
    for other in others:
        store["keys"] = keep(store["keys"], other["store"]["keys"])
        store["fallbacks"] += other["store"]["fallbacks"]
        theirs = {_identity(limit): limit for limit in other["limits"]}
        for limit in own["limits"]:
            same = theirs.get(_identity(limit))
            if same is not None:
                limit["violations"] += same["violations"]
                for name in ("keys", "taken") if "taken" in limit else ("keys",):
                    limit[name] = keep(limit[name], same[name])
    store["fallbacks"] += gone.get(FALLBACKS, 0)
    for limit in own["limits"]:
        limit["violations"] += gone.get(limit.pop("id"), 0)
    return own


def _add(one: int, other: int) -> int:
    return one + other


def _identity(limit: dict[str, Any]) -> tuple[object, ...]:
    return tuple(limit.get(name) for name in ("id", "limit", "concurrent"))


def _limit(
    limit: Quota, store: LocalStore | RedisStore, of_limits: Mapping[bytes, int], violations: int
) -> dict[str, object]:
    shown: dict[str, object] = {"id": limit.id.hex(), "endpoint": limit.endpoint, "scope": limit.scope}
    if isinstance(limit, ConcurrentLimit):
        keys, taken = store.taken(limit)
        shown |= {"concurrent": limit.most, "taken": taken}
    elif isinstance(limit, Limit):
        keys = of_limits.get(limit.id, 0)
        shown |= {"limit": limit.limit, "window": limit.window, "algorithm": limit.algorithm}
    config = limit.config
    if config.dry_run:
        shown["dry_run"] = True
    if config.who is not None:
        shown["plan"] = config.plan
        shown["for"] = str(config.who) or "everybody"
    return {**shown, "on_store_failure": limit.on_store_failure, "violations": violations, "keys": keys}
