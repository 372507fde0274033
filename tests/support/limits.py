"""Limits for tests, and a moment to begin at."""

from __future__ import annotations

from typing import Any

from apigw.policy.limits.arithmetic import Limit, compile_limit
from apigw.policy.limits.concurrent import ConcurrentLimit, compile_concurrent
from apigw.policy.limits.model import RateLimit

NOON = 1_700_006_400
"""A multiple of most windows, in seconds."""


def limit(number: int = 3, window: float = 60.0, algorithm: str = "auto", **rest: Any) -> Limit:
    config: dict[str, Any] = {"endpoint": "/api", "scope": "ip", "on_store_failure": "local", **rest}
    return compile_limit(RateLimit(limit=number, window=window, algorithm=algorithm, **config))


def concurrent(number: int = 2, **rest: Any) -> ConcurrentLimit:
    config: dict[str, Any] = {"endpoint": "/api", "scope": "ip", **rest}
    return compile_concurrent(RateLimit(concurrent=number, **config))
