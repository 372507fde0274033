# Compiled: see docs/decisions/compiled.md
"""Sends requests again, for services with ``retry``. ``upstream.failover`` decides which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from twisted.internet.interfaces import IDelayedCall

from apigw.contract.exchange import AtEnd, Exchange, Outcome, Stage, Waiting
from apigw.proxy.destination import Destination
from apigw.proxy.grpc import UNAVAILABLE as CALL_UNAVAILABLE
from apigw.proxy.grpc import status_in
from apigw.proxy.outcomes import FAILURES
from apigw.proxy.relay import Relay
from apigw.upstream.failover import UNAVAILABLE, Reason, Tries, reason_of
from apigw.upstream.retries import Retries
from apigw.upstream.target import Target
from apigw.wire.errors import UpstreamError, UpstreamLost
from apigw.wire.headers import Headers, first
from apigw.wire.interfaces import UpstreamConnection

MOST_DISCARDED: Final = 64 * 1024
"""Bytes of the body of a failed answer that are read, to keep the connection; a larger one ends the connection."""
DISCARDED_WITHIN: Final = 1.0
"""Seconds for all of it, and between two pieces."""


class BeginTries(Stage):
    """Begins to count the tries of an exchange. ``relay_of`` makes its relay, if there is none yet."""

    def __init__(
        self, destination: Destination, retries: Retries, relay_of: Callable[[Exchange, Destination], Relay]
    ) -> None:
        self._relay_of = relay_of
        self._destination = destination
        self._retries = retries

    def run(self, exchange: Exchange) -> Outcome:
        destination = self._destination
        relay = self._relay_of(exchange, destination) if exchange.relay is None else exchange.relay
        assert isinstance(relay, Relay)
        until = destination.seconds() + timeout_of(relay)
        tries = relay.tries = Tries(destination.upstream, self._retries, until)
        exchange.at_end = (*exchange.at_end, EndTries(tries))
        return None


class EndTries(AtEnd):
    def __init__(self, tries: Tries) -> None:
        self._tries = tries

    def run(self, exchange: Exchange) -> None:
        self._tries.end()


def timeout_of(relay: Relay) -> float:
    """The route's timeout for the request, in seconds."""
    request, destination = relay.request, relay.destination
    streams = request.content_length is None and (not request.body_complete or relay.exchange.call is not None)
    return destination.stream_timeout if streams else destination.timeout


def repeated(relay: Relay, reason: Reason, failed: bool, unsent: bool) -> Waiting | None:
    """Send the request again after a wait, or return None if it must not be; then nothing has changed but that the
    circuit knows the outcome: whether the service ``failed``. ``unsent`` as for ``Tries.may_follow``."""
    tries, request = relay.tries, relay.request
    if tries is None or request.started:
        return None
    now = relay.destination.seconds()
    if not tries.may_follow(reason, request.method, relay.whole(), unsent, now):
        return None
    relay.settle(failed)
    exchange = relay.exchange
    following = tries.begin(relay.destination.key(exchange), reason, now)
    if following is None:
        return None
    relay.permit, relay.wanted, relay.fresh = following.permit, following.target, False
    relay.part()
    exchange.waiting = pause = Pause(exchange, relay.destination, following.delay)
    return pause


@final
class Pause(Waiting):
    """The wait before another try."""

    def __init__(self, exchange: Exchange, destination: Destination, seconds: float) -> None:
        self._exchange = exchange
        self._call: IDelayedCall = destination.deadlines.clock.callLater(seconds, self._over)

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _over(self) -> None:
        self._exchange.at = len(self._exchange.route.stages) - 1  # ``forward.Connect``
        self._exchange.resume(None)


@final
class Try:
    """The ``Receiver`` of one try's answer. The relay gets it, unless the request is sent again: then it is
    discarded."""

    def __init__(self, relay: Relay, tries: Tries, target: Target, connection: UpstreamConnection) -> None:
        tries.tried = (*tries.tried, target)
        self._tries = tries
        self._relay = relay
        self._connection = connection
        self._discarded: int | None = None
        """Bytes, once the answer is discarded."""
        self._discarded_until = 0.0

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        relay = self._relay
        if repeated(relay, status, status in FAILURES, unsent=False) is not None:
            self._discarded = 0
            relay.target_did(status)
            length = first(headers, b"content-length")
            if length is not None and int(length) > MOST_DISCARDED and relay.request.method != b"HEAD":
                self._connection.abandon()
            else:
                self._connection.timeout = DISCARDED_WITHIN
                self._discarded_until = relay.destination.seconds() + DISCARDED_WITHIN
            return
        self._tries.answered()
        self._connection.timeout = timeout_of(relay)
        relay.response_started(status, reason, headers)
        if relay.tunnelled or relay.event_stream:
            self._tries.end()

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        relay = self._relay
        why, failed = status, status in FAILURES
        if relay.exchange.call is not None and status_in(headers) == CALL_UNAVAILABLE:
            why, failed = UNAVAILABLE, True
        if repeated(relay, why, failed, unsent=False) is None:
            self._tries.answered()
            relay.response_whole(status, reason, headers, body)
        else:
            relay.target_did(why)

    def response_received(self, data: bytes) -> None:
        if self._discarded is None:
            self._relay.response_received(data)
            return
        self._discarded += len(data)
        if self._discarded > MOST_DISCARDED or self._relay.destination.seconds() > self._discarded_until:
            self._connection.abandon()

    def response_paused(self) -> None:
        if self._discarded is None:
            self._relay.response_paused()

    def response_trailers(self, trailers: Headers) -> None:
        if self._discarded is None:
            self._relay.response_trailers(trailers)

    def response_finished(self) -> None:
        if self._discarded is None:
            self._relay.response_finished()

    def response_failed(self, error: UpstreamError) -> None:
        relay = self._relay
        if self._discarded is not None or relay.sent_again(error):
            return
        unsent = isinstance(error, UpstreamLost) and error.unsent
        reason = reason_of(error)
        if reason is None or repeated(relay, reason, failed=True, unsent=unsent) is None:
            relay.failed(error)

    def pause_body(self) -> None:
        if self._discarded is None:
            self._relay.pause_body()

    def resume_body(self) -> None:
        if self._discarded is None:
            self._relay.resume_body()

    def moved(self) -> int | None:
        return self._relay.moved() if self._discarded is None else None

    def too_slow(self) -> None:
        if self._discarded is None:
            self._relay.too_slow()
