# Compiled: see docs/decisions/compiled.md
"""What all limits have in common, whatever they count."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar

from apigw.policy.limits.model import UNMATCHED, RateLimit
from apigw.routing.hosts import Hosts
from apigw.routing.pattern import Pattern


class Quota:
    """``endpoint`` names it. ``pattern`` is of the paths that it limits, ``None`` for what matches no route; ``hosts``
    are those that it limits, ``None`` for all."""

    kind: ClassVar[str]
    """``rate`` or ``concurrent``."""

    def __init__(self, config: RateLimit) -> None:
        self.config = config
        self.endpoint = config.named
        self.hosts: Hosts[bool] | None = None
        if config.hosts:
            self.hosts = Hosts()
            for host in config.hosts:
                self.hosts.set(host, True)
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
