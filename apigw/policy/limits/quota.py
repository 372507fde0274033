# Compiled: see docs/decisions/compiled.md
"""What all limits have in common, whatever they count."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar

from apigw.policy.limits.model import UNMATCHED, RateLimit
from apigw.routing.pattern import Pattern


class Quota:
    """``pattern`` is of the paths that it limits: ``None`` where it limits what matches no route."""

    kind: ClassVar[str]
    """``rate`` or ``concurrent``."""

    def __init__(self, config: RateLimit) -> None:
        self.endpoint = config.endpoint
        self.scope = config.scope
        self.on_store_failure = config.on_store_failure
        self.pattern = None if config.endpoint == UNMATCHED else Pattern.parse(config.endpoint)

    @property
    def series(self) -> tuple[str, str, str]:
        """The labels of its metrics."""
        return self.endpoint, self.kind, self.scope


def identify(*parts: str) -> bytes:
    """Eight bytes that stand for a limit, the same in every process and after every reload."""
    return blake2b("\0".join(parts).encode(), digest_size=8).digest()
