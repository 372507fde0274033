"""``/limits``: the rate limits and their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apigw.contract.resource import Leaf, answer
from apigw.policy.limits.arithmetic import Limit
from apigw.policy.limits.concurrent import ConcurrentLimit
from apigw.policy.limits.in_redis import RedisStore
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.quota import Quota
from apigw.policy.limits.series import LimitSeries
from apigw.wire.web_request import WebRequest


class Limits(Leaf):
    """``GET /limits``: each limit, how it is counted, and its number of keys and violations."""

    def __init__(self, limits: Sequence[Quota], store: LocalStore | RedisStore, series: LimitSeries) -> None:
        super().__init__()
        self._limits = limits
        self._store = store
        self._series = series

    def render_GET(self, request: WebRequest) -> int:
        store = self._store
        violations = self._series.violations()
        keys = store.keys()
        shown = [_limit(limit, store, keys, violations.get(limit.series, 0)) for limit in self._limits]
        kept = {"kind": store.kind, "up": store.up, "keys": len(store), "fallbacks": self._series.fallbacks()}
        return answer(request, 200, {"store": kept, "limits": shown})


def _limit(
    limit: Quota, store: LocalStore | RedisStore, of_limits: Mapping[bytes, int], violations: int
) -> dict[str, object]:
    shown: dict[str, object] = {"endpoint": limit.endpoint, "scope": limit.scope}
    if isinstance(limit, ConcurrentLimit):
        keys, taken = store.taken(limit)
        shown |= {"concurrent": limit.most, "taken": taken}
    elif isinstance(limit, Limit):
        keys = of_limits.get(limit.id, 0)
        shown |= {"limit": limit.limit, "window": limit.window, "algorithm": limit.algorithm}
    return {**shown, "on_store_failure": limit.on_store_failure, "violations": violations, "keys": keys}
