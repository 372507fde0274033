"""Exact windows in memory with limits that the caller gives, in place of limits of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from apigw.policy.limits.arithmetic import LARGEST_LIMIT, Limit, compile_limit
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.model import RateLimit


class ExactWindows:
    """The ``Allow`` of the token endpoint (``policy.oauth.endpoint``), on a store that the caller starts and stops."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._limits: dict[tuple[int, float], Limit] = {}

    def __call__(self, counts: Sequence[tuple[bytes, int]], window: float) -> float | None:
        """Count one for each key, unless one has reached its limit in ``window``: then it counts none, and returns the
        seconds to wait. So whoever is refused makes no keys."""
        decision = self._store.check([(self._limit(limit, window), key) for key, limit in counts])
        return None if decision.allowed else float(decision.retry_after)

    def _limit(self, number: int, window: float) -> Limit:
        limit = min(number, LARGEST_LIMIT)
        exact = self._limits.get((limit, window))
        if exact is None:
            # Of a scope that no limit of the configuration has, as they may be in one store.
            exact = compile_limit(RateLimit("/oauth/token", limit, window, scope="caller", algorithm="log"))
            self._limits[limit, window] = exact
        return exact
