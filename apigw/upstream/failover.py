# Compiled: see docs/decisions/compiled.md
"""Failover to another target, and retries.

A request is sent again at most once, only if that is safe, and never because of the content of an answer.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.errors import ConnectFailed, UpstreamError, UpstreamLost
from apigw.wire.interfaces import UpstreamConnection

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"})
"""RFC 9110 §9.2.2, and its registry."""


class Taken:
    """A connection to a target. Call ``Upstream.end`` when its exchange has ended."""

    def __init__(self, target: Target, connection: UpstreamConnection) -> None:
        self.target = target
        self.connection = connection


def connect(upstream: Upstream, target: Target, key: bytes = b"") -> Deferred[Taken]:
    """A new connection to ``target``, or if none can be made, to one other target. Nothing is sent yet.

    ``key`` is the exchange's, as in ``Upstream.choose``. Fails with ``ConnectFailed`` or ``PoolExhausted``.
    """
    return _connect(upstream, target, key, True)


def _connect(upstream: Upstream, target: Target, key: bytes, elsewhere: bool) -> Deferred[Taken]:
    upstream.begin(target)
    taken: Deferred[Taken] = target.pool.connect().addCallbacks(
        partial(_connected, upstream, target), partial(_not_connected, upstream, target, key, elsewhere)
    )
    return taken


def _connected(upstream: Upstream, target: Target, connection: UpstreamConnection) -> Taken:
    return Taken(target, connection)


def _not_connected(
    upstream: Upstream, target: Target, key: bytes, elsewhere: bool, failure: Failure
) -> Failure | Deferred[Taken]:
    upstream.end(target)
    if failure.check(ConnectFailed):
        target.connect_failed(upstream.name, failure.getErrorMessage())
        upstream.series.error("connect")
        other = upstream.choose(key, (target,)) if elsewhere else None
        if other is not None:
            return _connect(upstream, other, key, False)
    return failure


def again(
    upstream: Upstream,
    target: Target,
    key: bytes,
    error: UpstreamError,
    method: bytes,
    kept: bool,
    repeated: bool,
    used: bool,
) -> Target | None:
    """The target for the retry of an exchange that failed with ``target``, or None; see ``is_repeated``."""
    elsewhere = upstream.has_other(target)
    if not is_repeated(error, method, kept, repeated, used, elsewhere):
        return None
    return upstream.choose(key, (target,)) or target


def is_repeated(error: UpstreamError, method: bytes, kept: bool, repeated: bool, used: bool, elsewhere: bool) -> bool:
    """Whether an exchange that ended with ``error`` is sent again.

    ``kept``: its body is complete and still here, or there is none. ``repeated``: this was the second time. ``used``:
    the connection had carried an exchange before. ``elsewhere``: it would go to another target.

    Only a connection that closed without a byte of an answer says that the service may not have seen the request: it
    had probably been closed for being idle (RFC 9110 §9.2.2). A new one that ends like this was taken by a process that
    is being killed: then only another target can help.
    """
    if not isinstance(error, UpstreamLost) or not error.silent:
        return False
    return not repeated and kept and (method in IDEMPOTENT or error.unsent) and (used or elsewhere)
