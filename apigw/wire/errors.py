# Compiled: see docs/decisions/compiled.md
"""Errors of HTTP, on the side of clients and of upstreams."""

from __future__ import annotations


class Refused(Exception):
    """A request that is refused while it is parsed. The answer has ``status``, and ``reason``, one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.began_with = b""
        """The beginning of the request, where it did not become one."""


class ClientLost(Exception):
    """The client went away, or stalled for too long, before its exchange ended. No answer can be sent."""


class UpstreamError(Exception):
    """An upstream gave no complete and valid answer. The subclasses are the ways."""


class ConnectFailed(UpstreamError):
    """No connection could be made: refused, unreachable, a name that does not resolve, or a failed TLS handshake.

    ``target`` is the name of the last one that was tried, where several are.
    """

    target = ""


class PoolExhausted(UpstreamError):
    """Every connection is in use, and too many requests wait, or none became free in time."""


class UpstreamLost(UpstreamError):
    """The connection closed before the response was complete.

    ``silent``: before its first byte. ``unsent``: before anything of the request was sent. ``reset``: the code with
    which the service has reset the stream, if it has.
    """

    def __init__(self, message: str, silent: bool = False, unsent: bool = False, reset: int | None = None) -> None:
        super().__init__(message)
        self.reset = reset
        self.silent = silent
        self.unsent = unsent


class UpstreamMalformed(UpstreamError):
    """The upstream sent an invalid or ambiguous response."""


class HeadTooLarge(UpstreamError):
    """The upstream has said that it takes no head of this size. Nothing was sent."""


class UpstreamTimedOut(UpstreamError):
    """The upstream exceeded the timeout, to its headers or between two pieces of its body."""
