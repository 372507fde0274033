# Compiled: see docs/decisions/compiled.md
"""Failover to another target, and retries: every rule for sending a request again.

``connect`` and ``again`` hold for every service: a request that the service has not got is sent once more, at once. So
does ``instead``, for what an ejected target has answered. ``Tries`` holds for services with ``retry``, which may have
got it. Both as users see them: docs/reference/retries.md.
``proxy.repeat`` does what is decided here.
"""

from __future__ import annotations

from functools import partial
from typing import Final, cast, final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.errors import CircuitOpen
from apigw.upstream.record import Permit
from apigw.upstream.retries import IDEMPOTENT, LEAST, Retries
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.errors import ConnectFailed, HeadTooLarge, UpstreamError, UpstreamLost, UpstreamTimedOut
from apigw.wire.interfaces import UpstreamConnection

CONNECT: Final = "connect"
RESET: Final = "reset"
INVALID: Final = 502
UNAVAILABLE: Final = 503
TIMED_OUT: Final = 504
OF_TARGET: Final = frozenset({INVALID, UNAVAILABLE, TIMED_OUT})
"""Statuses of which another target may know better. 500 is as likely the request's fault."""

CANCEL: Final = 8
"""The code of HTTP/2 with which a service says that it does not want the request any more (RFC 9113 §7)."""

Reason = str | int
"""Why a try has failed: ``CONNECT``, ``RESET``, or the status that the client would get. An entry of ``retry.on``."""

BASE: Final = 0.025
"""Seconds. Before the nth retry the wait is up to 2ⁿ − 1 times this, and up to ``LONGEST``: Envoy's default."""
LONGEST: Final = 10 * BASE


class Taken:
    """A connection to a target. Where requests are counted, call ``Upstream.end`` when its exchange has ended."""

    def __init__(self, target: Target, connection: UpstreamConnection) -> None:
        self.target = target
        self.connection = connection


def connect(upstream: Upstream, target: Target, key: bytes = b"", tries: Tries | None = None) -> Deferred[Taken]:
    """A new connection to ``target``, or if none can be made, to one other target. Nothing is sent yet.

    ``key`` is the exchange's, as in ``Upstream.choose``. ``tries`` are its tries, if the service has retries; only the
    first may go to another target. Fails with ``ConnectFailed`` or ``PoolExhausted``.
    """
    return _connect(upstream, target, key, tries is None or tries.number == 1, tries)


def _connect(upstream: Upstream, target: Target, key: bytes, elsewhere: bool, tries: Tries | None) -> Deferred[Taken]:
    if upstream.counts:
        upstream.begin(target)
    taken: Deferred[Taken] = target.pool.connect().addCallbacks(
        partial(_connected, upstream, target), partial(_not_connected, upstream, target, key, elsewhere, tries)
    )
    return taken


def _connected(upstream: Upstream, target: Target, connection: UpstreamConnection) -> Taken:
    return Taken(target, connection)


def _not_connected(
    upstream: Upstream, target: Target, key: bytes, elsewhere: bool, tries: Tries | None, failure: Failure
) -> Failure | Deferred[Taken]:
    if upstream.counts:
        upstream.end(target)
    if failure.check(ConnectFailed):
        if tries is not None:
            tries.tried = (*tries.tried, target)
        target.connect_failed(upstream.name, failure.getErrorMessage())
        upstream.series.error("connect")
        other = upstream.choose(key, (target,)) if elsewhere else None
        if other is not None:
            upstream.series.retried(CONNECT)
            return _connect(upstream, other, key, False, tries)
        cast(ConnectFailed, failure.value).target = target.name
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
    """The target for an exchange that failed with ``target`` and is sent again, or None; see ``is_repeated``."""
    elsewhere = upstream.has_other(target)
    if not is_repeated(error, method, kept, repeated, used, elsewhere):
        return None
    upstream.series.retried(RESET)
    return upstream.choose(key, (target,)) or target


def is_repeated(error: UpstreamError, method: bytes, kept: bool, repeated: bool, used: bool, elsewhere: bool) -> bool:
    """Whether an exchange that ended with ``error`` is sent again, whatever the service's ``retry``.

    ``kept``: its body is complete and still here, or there is none. ``repeated``: this was done before. ``used``:
    the connection had carried an exchange before. ``elsewhere``: it would go to another target.

    Only a connection that closed without a byte of an answer says that the service may not have seen the request: it
    had probably been closed for being idle (RFC 9110 §9.2.2). A new one that ends like this was taken by a process that
    is being killed: then only another target can help.
    """
    if not isinstance(error, UpstreamLost) or not error.silent:
        return False
    return not repeated and kept and (method in IDEMPOTENT or error.unsent) and (used or elsewhere)


def instead(
    upstream: Upstream, target: Target, key: bytes, status: int, method: bytes, kept: bool, repeated: bool
) -> Target | None:
    """The target for an exchange that ``target`` has answered with ``status`` and that is sent to another one, or None.

    That is where the target is known to be at fault, and not the request or the whole service: it is ejected, by now or
    before, or was in the last five minutes. So clients see little of a target that comes and goes. While it is ejected,
    only what was in flight can fail, and the probe. Later it may fail all the time: then up to ``LEAST`` requests of
    each process are under way elsewhere, so that an outage does not become worse. Those are counted in
    ``upstream.amended``, by the caller. ``kept`` and ``repeated`` as for ``is_repeated``.
    """
    if repeated or not kept or status not in OF_TARGET or method not in IDEMPOTENT:
        return None
    if not target.ejected:
        lately = target.standing.lately(upstream.seconds())
        if not lately or upstream.amended >= LEAST or not upstream.has_other(target):
            return None
    other = upstream.choose(key, (target,))
    if other is not None:
        upstream.series.retried(str(status))
    return other


def reason_of(error: UpstreamError) -> Reason | None:
    """Why a try has failed that ended with ``error`` before the head of an answer; None if the service gave it up, or
    does not take it."""
    if isinstance(error, HeadTooLarge):
        return None
    if isinstance(error, UpstreamLost):
        return None if error.reset == CANCEL else RESET
    return TIMED_OUT if isinstance(error, UpstreamTimedOut) else INVALID


class Next:
    """Another try: its ``target``, the ``permit`` of the circuit, and the seconds to wait before it (``delay``)."""

    def __init__(self, target: Target, permit: Permit | None, delay: float) -> None:
        self.target = target
        self.permit = permit
        self.delay = delay


@final
class Tries:
    """The tries of one exchange: how many there were and where, and whether there is another.

    Call ``end`` when the exchange is over.
    """

    def __init__(self, upstream: Upstream, retries: Retries, until: float) -> None:
        """``until``: when all of them must be over, in seconds of the clock."""
        self.number = 1
        """Of the present one."""
        self.tried: tuple[Target, ...] = ()
        self.until = until
        self._upstream = upstream
        self._retries = retries
        self._delay = 0.0
        self._charged = False
        self._counted = True
        retries.budget.in_flight.change(1)

    def timeout(self, timeout: float, now: float) -> float:
        """Seconds that the present try has to the head of its answer. ``timeout`` is the route's."""
        per_try = self._retries.per_try_timeout
        if per_try is not None and per_try < timeout:
            timeout = per_try
        return timeout if self.number == 1 else min(timeout, max(0.0, self.until - now))

    def may_follow(self, reason: Reason, method: bytes, kept: bool, unsent: bool, now: float) -> bool:
        """Whether there may be another try after one that failed for ``reason``.

        ``kept``: the request's body is complete and still here, or there is none. ``unsent``: the service has not got
        the request, so that the method does not matter. Nothing of an answer may have gone to the client.
        """
        retries = self._retries
        if reason not in retries.on or self.number >= retries.tries:
            return False
        if reason != CONNECT and not (kept and (unsent or retries.methods is None or method in retries.methods)):
            return False
        self._delay = retries.random() * min(LONGEST, BASE * ((1 << self.number) - 1))
        return now + self._delay < self.until

    def begin(self, key: bytes, reason: Reason, now: float) -> Next | None:
        """Begin the next try, after ``may_follow``; or None if circuit or budget do not let it pass, or no target is
        available. One that the exchange has not tried comes first.

        The outcome of the last try has been told to the circuit. ``key`` as in ``Upstream.choose``.
        """
        upstream, budget = self._upstream, self._retries.budget
        circuit, permit = upstream.circuit, None
        if circuit is not None:
            try:
                permit = circuit.admit(now)
            except CircuitOpen:
                return None
        self.answered()
        target = None
        if budget.take():
            self._charged = True
            target = upstream.choose(key, self.tried) or upstream.choose(key)
        else:
            upstream.series.retry_denied()
        if target is None:
            if circuit is not None and permit is not None:
                circuit.cancel(permit, now)
            self.answered()
            return None
        self.number += 1
        upstream.series.retried(str(reason))
        return Next(target, permit, self._delay)

    def answered(self) -> None:
        """The present try is not in the budget any longer: its answer has begun, or it has failed."""
        if self._charged:
            self._charged = False
            self._retries.budget.give_back()

    def end(self) -> None:
        """The exchange is over, or lasts for hours, as a tunnel does: it counts no longer. May be called again."""
        self.answered()
        if self._counted:
            self._counted = False
            self._retries.budget.in_flight.change(-1)
