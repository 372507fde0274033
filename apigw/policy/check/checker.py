"""One external check: asks its program, remembers passes, and leaves it alone while it fails."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as HeadersObject

from apigw.contract.address_groups import network
from apigw.contract.places import Places
from apigw.contract.shared_calls import SharedCalls
from apigw.errors import AuthUnavailable
from apigw.policy.check.model import Check
from apigw.policy.check.series import CheckSeries
from apigw.policy.check.verdict import Verdict, digest_of, judge
from apigw.wire.errors import UpstreamLost, UpstreamMalformed
from apigw.wire.fetch import Answered, Ask, FetchFailed
from apigw.wire.headers import Headers

MOST_BODY = 64 * 1024
"""Bytes of an answer's body: a page that says why, or a form to log in."""

AT_A_TIME = 256
"""Requests that wait for one checker, in one worker: as many as its pool has connections."""
EACH = 64
"""How many of them may be of one client address (IPv6: a /64)."""

FAILURES = 10
"""After so many in a row for which there was no connection, or no answer in time, one request is let through every
``PROBES_EVERY`` seconds, until one is answered."""
CLIENTS = AT_A_TIME // EACH
"""Silence counts when so many client addresses have met it: fewer may ask what takes it long, and could have it left
alone for all others."""
PROBES_EVERY = 1.0
TOLD_EVERY = 10.0
"""Seconds between two lines of the log about single questions without a verdict: clients choose these."""

REMEMBERED = 16_384
MOST_TAKEN = 1024
"""Passes that are remembered, and the bytes of fields that each may have: 16 MiB and some in all."""

log = Logger()


class Checker:
    """``seconds`` is monotonic."""

    def __init__(self, check: Check, ask: Ask, clock: Any, series: CheckSeries) -> None:
        self.check = check
        self._ask = ask
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._series = series
        self._take = frozenset(name.lower().encode("ascii") for name in check.take)
        self._asking = SharedCalls()
        self._places = Places(AT_A_TIME, EACH)
        self._failures = 0
        self._kept_waiting: set[str] = set()
        """Clients that got no answer in time, since the last answer."""
        self._next_probe = 0.0
        self._next_told = -math.inf
        self._passes: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()

    def verdict(self, asked: Headers, before: Callable[[], object], caller: bytes = b"") -> Verdict | Deferred[Verdict]:
        """The verdict on what is asked for ``caller``, a client's address. ``before`` is called before the program is
        asked, and may raise.

        Raises, or fires with, ``AuthUnavailable`` where there is none. May be cancelled.
        """
        if not self.check.cache:
            before()
            return self._begin(asked, network(caller))
        key = digest_of(asked)
        known = self._passes.get(key)
        if known is not None and self._seconds() < known[0]:
            self._passes.move_to_end(key)
            self._series.counted(self.check.name, "remembered")
            return known[1]
        before()
        asking = self._asking.join(key, lambda: self._begin(asked, network(caller)).addCallback(self._remember, key))
        return asking.addErrback(_of_its_own)

    def take_over(self, previous: Checker) -> None:
        """``previous`` is the same check, of the configuration before."""
        self._passes, previous._passes = previous._passes, OrderedDict()
        self._failures, self._next_probe = previous._failures, previous._next_probe

    def _begin(self, asked: Headers, caller: str) -> Deferred[Verdict]:
        now = self._seconds()
        probes = self._failures >= FAILURES
        if probes:
            if now < self._next_probe:
                raise self._unavailable()  # it has failed too often
            self._next_probe = now + PROBES_EVERY
        if not self._places.take(caller):
            raise self._unavailable()
        headers = HeadersObject()
        for name, value in asked:
            headers.addRawHeader(name, value)
        asking: Deferred[Any] = Deferred.fromCoroutine(self._ask(self.check.url, headers))
        asking.addTimeout(self.check.timeout, self._clock, _too_late)
        asking.addBoth(self._ended, now, caller).addCallbacks(self._judge, self._failed, errbackArgs=(caller,))
        if not probes:
            return asking
        # It goes on if its client leaves: else clients that never stay would keep the answer from all others.
        waiting: Deferred[Verdict] = Deferred()
        asking.chainDeferred(waiting)
        return waiting

    def _ended(self, result: Any, began: float, caller: str) -> Any:
        self._places.give_back(caller)
        self._series.answered(self.check.name, self._seconds() - began)
        return result

    def _judge(self, answered: Answered) -> Verdict:
        verdict = judge(answered.status, answered.fields, answered.body, self._take)
        self._is_there()
        if verdict is None:
            self._tell(f"it answered with {answered.status}")
            raise self._unavailable()
        self._series.counted(self.check.name, "refused" if verdict.status else "passed")
        return verdict

    def _failed(self, failure: Failure, caller: str) -> Failure:
        if failure.check(CancelledError):  # the client has left
            return failure
        error = failure.value
        why = str(error) or type(error).__name__
        if isinstance(error, _Late):
            if len(self._kept_waiting) < CLIENTS:
                self._kept_waiting.add(caller)
            if len(self._kept_waiting) == CLIENTS:
                raise self._failed_with(why)
        elif isinstance(error, _AT_THE_QUESTION):
            self._is_there()
        else:
            raise self._failed_with(why)
        self._tell(why)
        raise self._unavailable()

    def _is_there(self) -> None:
        """It has said something. If that is no verdict, it fails at this question: no client may have it left alone
        for all others by questions at which it fails."""
        if self._failures >= FAILURES:
            log.info("check {name}: answers again", name=self.check.name)
        self._failures = 0
        self._kept_waiting.clear()

    def _failed_with(self, why: str) -> AuthUnavailable:
        self._failures += 1
        if self._failures == FAILURES:
            self._next_probe = self._seconds() + PROBES_EVERY
            times = f"{FAILURES} times in a row: it is asked once a second"
            log.warn("check {name}: no verdict: {why}, {times}", name=self.check.name, why=why, times=times)
        elif self._failures == 1:
            self._tell(why)
        return self._unavailable()

    def _tell(self, why: str) -> None:
        now = self._seconds()
        if now >= self._next_told:
            self._next_told = now + TOLD_EVERY
            log.warn("check {name}: no verdict: {why}", name=self.check.name, why=why)

    def _unavailable(self) -> AuthUnavailable:
        self._series.counted(self.check.name, "failed")
        return AuthUnavailable("The check of this request gives no answer.", [(b"retry-after", b"1")])

    def _remember(self, verdict: Verdict, key: bytes) -> Verdict:
        size = sum(len(name) + len(value) for name, value in verdict.taken)
        if not verdict.status and size <= MOST_TAKEN:
            self._passes[key] = self._seconds() + self.check.cache, verdict
            if len(self._passes) > REMEMBERED:
                self._passes.popitem(last=False)
        return verdict


def _of_its_own(failure: Failure) -> NoReturn:
    """An error for each request: what refuses one may add fields to it."""
    error = failure.value
    assert error is not None
    raise AuthUnavailable(error.detail, error.headers) if isinstance(error, AuthUnavailable) else error


class _Late(FetchFailed):
    """There is no answer in time."""


_AT_THE_QUESTION = (FetchFailed, UpstreamLost, UpstreamMalformed)
"""What it has said cannot be used, or it has closed the connection instead."""


def _too_late(result: Any, seconds: float) -> None:
    raise _Late(f"it has not answered within {seconds:g} s")
