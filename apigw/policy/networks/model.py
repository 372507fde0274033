"""The configuration of networks that may call."""

from __future__ import annotations

from attrs import frozen


@frozen
class Networks:
    """Of a route, or of the gateway for all. ``allow``: ``None`` for everybody. Both are CIDRs, and ``unix:``."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.allow is not None or bool(self.deny)
