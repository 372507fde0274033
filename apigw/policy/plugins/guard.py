# Compiled: see docs/decisions/compiled.md
"""Contains the failures of one plugin: counts them, and cuts it off while it fails all the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, final

from apigw.errors import PolicyFailed

FAILURES: Final = 50
WITHIN: Final = 10.0
"""So many failures within so many seconds cut a plugin off."""
PROBE_EVERY: Final = 1.0
"""Seconds between two calls of a plugin that is cut off."""
BLOCKS: Final = 0.05
"""Seconds of one call from which on a plugin is named in the log: other requests have waited for it."""
NAMED_EVERY: Final = 1.0
"""Seconds between two lines of the log about that."""

TIMER: Final = perf_counter
"""Times calls. By a name that is ``Final``, compiled code calls it without a look into a dict."""

EXCEPTION: Final = "exception"
VALUE: Final = "value"
TIMEOUT: Final = "timeout"
KINDS: Final = (EXCEPTION, VALUE, TIMEOUT)
"""Values of the label ``kind``."""


@final
class Counts:
    """What metrics tell of one plugin; they outlive a change of its settings."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        """Spent in its code."""
        self.failures = dict.fromkeys(KINDS, 0)
        self.skipped = 0
        """Calls that were not made, because it is cut off."""
        self.blocked = 0


@final
class Guard:
    """``is_open``: whether requests go on without the plugin when it fails. ``log`` is its ``PluginLog``.

    ``timeout`` is in seconds; ``clock`` is the reactor's.
    """

    def __init__(self, is_open: bool, timeout: float, counts: Counts, log: Any, clock: Any) -> None:
        self.counts = counts
        self.is_open = is_open
        self.timeout = timeout
        self.log = log
        self.clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self.cut_off = False
        self._failed_at: deque[float] = deque(maxlen=FAILURES)
        self._probe_at = 0.0
        self._named_at = -NAMED_EVERY

    def skips(self) -> bool:
        """Whether it is not to be called now: it is cut off, and this call is no probe."""
        now = self._seconds()
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY
            return False
        self.counts.skipped += 1
        return True

    def took(self, seconds: float, method: str) -> None:
        """A call has been made, and spent so many seconds in the plugin's code."""
        self.counts.calls += 1
        self.spent(seconds, method)

    def spent(self, seconds: float, method: str) -> None:
        """A call that has waited has spent so many seconds more."""
        self.counts.seconds += seconds
        if seconds >= BLOCKS:
            self._blocks(seconds, method)

    def succeeded(self) -> None:
        """Called after a call that has ended well, while it is cut off."""
        self.cut_off = False
        self._failed_at.clear()
        self.log.said("works again, and is called as before")

    def failed(self, kind: str, method: str, error: BaseException, request: bytes = b"") -> None:
        """A call of ``method`` has failed, for the request with this id."""
        self.counts.failures[kind] += 1
        now = self._seconds()
        failed_at = self._failed_at
        failed_at.append(now)
        self.log.failed(method, error, request.decode("ascii"))
        forget(error)
        if self.cut_off:
            return
        if len(failed_at) == FAILURES and now - failed_at[0] <= WITHIN:
            self.cut_off = True
            self._probe_at = now + PROBE_EVERY
            instead = "requests go on without it" if self.is_open else "requests are answered 500 policy_failed"
            self.log.said(
                f"failed {FAILURES} times in {WITHIN:g} s, and is not called until a probe succeeds: {instead}"
            )

    def refusal(self) -> PolicyFailed:
        """The error of a request for which it has failed, or would have."""
        return PolicyFailed("A policy of this route has failed; the gateway's log has the details.")

    def _blocks(self, seconds: float, method: str) -> None:
        self.counts.blocked += 1
        now = self._seconds()
        if now - self._named_at >= NAMED_EVERY:
            self._named_at = now
            self.log.said(f"has kept all other requests waiting for {seconds * 1000:.0f} ms, in {method}")


def forget(error: BaseException) -> None:
    """Drop the traceback. A plugin may raise the same object for each request: it would grow each time, and keep what
    the frames in it have, of every exchange."""
    BaseException.with_traceback(error, None)
