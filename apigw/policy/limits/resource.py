"""``/limits``: the rate limits and their counts."""

from __future__ import annotations

from collections.abc import Sequence

from apigw.contract.resource import Leaf, answer
from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.series import LimitSeries
from apigw.wire.web_request import WebRequest


class Limits(Leaf):
    """``GET /limits``: each limit, how it is counted, and its number of keys and violations."""

    def __init__(self, limits: Sequence[Limit], store: MemoryStore | RedisStore, series: LimitSeries) -> None:
        super().__init__()
        self._limits = limits
        self._store = store
        self._series = series

    def render_GET(self, request: WebRequest) -> int:
        store = self._store
        violations = self._series.violations()
        shown = [_limit(limit, store, violations.get((limit.endpoint, limit.scope), 0)) for limit in self._limits]
        kept = {"kind": store.kind, "up": store.up, "keys": len(store), "fallbacks": self._series.fallbacks()}
        return answer(request, 200, {"store": kept, "limits": shown})


def _limit(limit: Limit, store: MemoryStore | RedisStore, violations: int) -> dict[str, object]:
    return {
        "endpoint": limit.endpoint,
        "scope": limit.scope,
        "limit": limit.limit,
        "window": limit.window,
        "algorithm": limit.algorithm,
        "on_store_failure": limit.on_store_failure,
        "violations": violations,
        "keys": store.keys_of(limit),
    }
