# Compiled: see docs/decisions/compiled.md
"""The destination of a route's requests: the service, and the settings for it."""

from __future__ import annotations

from collections.abc import Callable

from apigw.contract.exchange import Exchange
from apigw.proxy.headers import CopyRules
from apigw.proxy.keys import KeyOf
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines


class Destination:
    """A service, and the route's settings for it. Times are seconds, sizes bytes.

    ``max_body_size`` is None for no limit. ``buffer_body``: a body up to this size is read whole before a connection
    is taken; 0 for no buffering. ``stream_timeout`` replaces ``timeout`` while a body of unknown length is open.
    """

    def __init__(
        self,
        upstream: Upstream,
        copied: CopyRules,
        deadlines: Deadlines,
        timeout: float,
        stream_timeout: float,
        tunnel_idle_timeout: float,
        max_body_size: int | None,
        buffer_body: int,
        preserve_host: bool,
        log_decisions: bool,
        key_of: KeyOf | None = None,
    ) -> None:
        self.upstream = upstream
        self.copied = copied
        self.deadlines = deadlines
        self.seconds: Callable[[], float] = deadlines.seconds
        self.timeout = timeout
        self.stream_timeout = stream_timeout
        self.tunnel_idle_timeout = tunnel_idle_timeout
        self.max_body_size = max_body_size
        self.buffer_body = buffer_body
        self.preserve_host = preserve_host
        self.log_decisions = log_decisions
        self._key_of: KeyOf | None = key_of

    def key(self, exchange: Exchange) -> bytes:
        """What exchanges of one target have in common (``Upstream.choose``). Empty without ``balance: hash``."""
        key_of = self._key_of
        return b"" if key_of is None else key_of.of(exchange)
