"""Why Redis cannot be used, in words for the log."""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet import error


class RedisUnavailable(Exception):
    """There is no usable reply: no connection, an error, a late or an unexpected reply."""


_WORDS: tuple[tuple[type[BaseException], Callable[..., str]], ...] = (
    (error.DNSLookupError, lambda failure: "its name cannot be resolved"),
    (error.UnknownHostError, lambda failure: "its name cannot be resolved"),
    (error.ConnectionRefusedError, lambda failure: "the connection was refused"),
    (error.TimeoutError, lambda failure: "no connection in time"),
    (error.ConnectionDone, lambda failure: "it closed the connection"),
    (error.ConnectionLost, lambda failure: "the connection was lost"),
    (error.ConnectionAborted, lambda failure: "the connection was given up"),
    (SSL.Error, lambda failure: f"TLS failed: {_of_openssl(failure)}"),
)
"""Messages for exceptions whose own text is unclear."""


def in_words(failure: BaseException) -> str:
    """The end of a sentence that begins with "Redis is unavailable: "."""
    for kind, words in _WORDS:
        if isinstance(failure, kind):
            return words(failure)
    if isinstance(failure, error.ConnectError):
        return f"no connection: {failure.osError or failure}"
    return str(failure) or type(failure).__name__


def _of_openssl(failure: SSL.Error) -> str:
    """What stands in OpenSSL's list of (library, function, reason)."""
    try:
        return ", ".join(reason for _, _, reason in failure.args[0]) or "the connection was cut"
    except (IndexError, TypeError, ValueError):
        return str(failure) or "the connection was cut"
