"""Exact windows in memory with limits that the caller gives, in place of limits of the configuration."""

from __future__ import annotations

from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.local import LocalStore
from apigw.policy.limits.model import RateLimit


class ExactWindows:
    """The ``Allow`` of the token endpoint (``policy.oauth.endpoint``), on a store that the caller starts and stops."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._limits: dict[tuple[int, float], Limit] = {}

    def __call__(self, key: bytes, limit: int, window: float) -> float | None:
        """Count one for ``key``. Beyond ``limit`` in ``window``, returns the seconds to wait and counts nothing."""
        exact = self._limits.get((limit, window))
        if exact is None:
            # Of a scope that no limit of the configuration has, as they may be in one store.
            exact = compile_limit(RateLimit("/oauth/token", limit, window, scope="caller", algorithm="log"))
            self._limits[limit, window] = exact
        decision = self._store.check([(exact, key)])
        return None if decision.allowed else float(decision.retry_after)
