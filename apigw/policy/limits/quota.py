# Compiled: see docs/decisions/compiled.md
"""What all limits have in common, whatever they count."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar

from apigw.policy.limits.dimensions import Dimensions, dimensions
from apigw.policy.limits.model import UNMATCHED, RateLimit
from apigw.routing.hosts import Hosts
from apigw.routing.pattern import Pattern


class Placed:
    """What has a place. ``pattern`` is of the paths there, ``None`` for what matches no route; ``hosts`` are the hosts,
    ``None`` for all. A route's own limits look at neither."""

    def __init__(self, config: RateLimit) -> None:
        self.hosts: Hosts[bool] | None = None
        if config.hosts:
            self.hosts = Hosts()
            for host in config.hosts:
                self.hosts.set(host, True)
        matched = config.route is None and config.endpoint != UNMATCHED
        self.pattern = Pattern.parse(config.endpoint) if matched else None


class Quota(Placed):
    """``endpoint`` names it. ``scope`` is what it counts by, in words; ``by`` where that is none of ``SHORT``."""

    kind: ClassVar[str]
    """``rate`` or ``concurrent``."""
    id: bytes
    """Eight bytes of ``identify``."""

    def __init__(self, config: RateLimit) -> None:
        super().__init__(config)
        self.config = config
        self.endpoint = config.named
        self.scope = config.counts_by
        self.by: Dimensions | None = dimensions(config)
        self.on_store_failure = config.on_store_failure

    @property
    def counted_as(self) -> str:
        """What its ``id`` begins with: that of a dry run is not that of a limit in force for the same."""
        identity = self.config.identity
        return f"{identity} dry" if self.config.dry_run else identity

    @property
    def series(self) -> tuple[str, str, str]:
        """The labels of its metrics."""
        return self.endpoint, self.kind, self.scope


def identify(*parts: str) -> bytes:
    """Eight bytes that stand for a limit, the same in every process and after every reload."""
    return blake2b("\0".join(parts).encode(), digest_size=8).digest()
