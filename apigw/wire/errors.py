# Compiled: see docs/decisions/compiled.md
"""What the wire itself refuses or suffers."""

from __future__ import annotations


class Refused(Exception):
    """A request that goes no further than the wire. The client is told ``status``, and ``reason`` in one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.began_with = b""
        """The beginning of the request, where it did not become one."""


class ClientLost(Exception):
    """The client went away, or stalled for too long, before its exchange ended. Nothing can be answered any more."""


class UpstreamError(Exception):
    """An upstream did not give a whole, valid answer. Subclasses say in which way."""


class ConnectFailed(UpstreamError):
    """No connection could be made: refused, unreachable, a name that does not resolve, or a failed TLS handshake."""


class PoolExhausted(UpstreamError):
    """Every connection is in use, and no more requests may wait for one."""


class UpstreamLost(UpstreamError):
    """The connection closed before the response was complete.

    ``silent``: before its first byte. ``unsent``: before anything of the request was sent.
    """

    def __init__(self, message: str, silent: bool = False, unsent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent
        self.unsent = unsent


class UpstreamMalformed(UpstreamError):
    """What the upstream sent is not an HTTP/1.1 response that can be trusted."""


class UpstreamTimedOut(UpstreamError):
    """The upstream was waited for as long as it may take: for its headers, or between two pieces of its body."""
