"""Ends what lasts when the credential that opened it does not hold any more: tunnels, and streams also of gRPC."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.contract.exchange import Exchange, OnLasting
from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable, Unauthorized
from apigw.policy.auth.authenticator import Authenticator
from apigw.policy.auth.refusals import EXPIRED, Refusal
from apigw.wire.deadlines import Deadlines

REVIEW = 10.0
"""Seconds between two checks of an exchange: whether its token is still valid, and whether it has ended."""

APART = 0.001
"""Seconds between the checks after a reload. Each may verify a token, which blocks the reactor for up to a tenth of
this time."""

TAKEN_BACK = Refusal("unknown_key", "the credential is not accepted any more")

log = Logger()


class Lasting(OnLasting):
    """All tunnels and streams, across reloads. ``failed`` is called with the reason for each that is ended."""

    def __init__(self, deadlines: Deadlines, now: Callable[[], float], failed: Callable[[str], None]) -> None:
        self._deadlines = deadlines
        self._now = now
        self._failed = failed
        self._authenticator: Authenticator | None = None
        self._watched: dict[_Watched, None] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def use(self, authenticator: Authenticator | None) -> None:
        """A new configuration is in force: check every token again, one after the other."""
        if authenticator is not self._authenticator:
            self._authenticator = authenticator
            seconds = self._deadlines.seconds()
            for place, watched in enumerate(self._watched):
                watched.deadline = min(watched.deadline, seconds + place * APART)

    def run(self, exchange: Exchange) -> None:
        principal = exchange.principal
        if principal is not None:
            watched = _Watched(exchange, principal, self.review)
            self._watched[watched] = None
            self._next(watched)
            self._deadlines.watch(watched)

    def review(self, watched: _Watched) -> None:
        """Check an exchange. It is ended if its token is no longer valid."""
        if watched.exchange.ended:
            self._forget(watched)
            return
        self._next(watched)
        error = self._refusal(watched)
        if error is not None:
            self._end(watched, error)

    def _end(self, watched: _Watched, error: Unauthorized) -> None:
        exchange = watched.exchange
        self._forget(watched)
        if error.reason is not None:
            self._failed(error.reason)
        log.info("{id}: ended: {reason}", id=exchange.id.decode("ascii"), reason=error.detail)
        exchange.driver.refuse(exchange, error)

    def _forget(self, watched: _Watched) -> None:
        self._deadlines.forget(watched)
        del self._watched[watched]

    def _next(self, watched: _Watched) -> None:
        left = watched.principal.expires - self._now()
        watched.deadline = self._deadlines.seconds() + min(max(left, 0.0), REVIEW)

    def _refusal(self, watched: _Watched) -> Unauthorized | None:
        """The reason why the token is no longer valid. While its keys are unavailable, it is valid until it expires."""
        now = self._now()
        if now >= watched.principal.expires:
            return EXPIRED()
        if self._authenticator is None:
            return TAKEN_BACK()
        try:
            found = self._authenticator.again(watched.exchange.request, watched.principal, now)
        except AuthUnavailable:
            return None
        except Unauthorized as error:
            return error
        if isinstance(found, Deferred):
            found.addCallbacks(lambda _: None, self._answered, errbackArgs=(watched,))
            return None
        return None if isinstance(found, Principal) else TAKEN_BACK()

    def _answered(self, failure: Failure, watched: _Watched) -> None:
        """The provider was asked, and does not vouch for the token. If it says nothing, the exchange goes on."""
        error = failure.value
        if isinstance(error, Unauthorized) and watched in self._watched and not watched.exchange.ended:
            self._end(watched, error)


class _Watched:
    """A tunnel or a stream, with the deadline of its next check."""

    deadline: float

    def __init__(self, exchange: Exchange, principal: Principal, review: Callable[[_Watched], None]) -> None:
        self.exchange = exchange
        self.principal = principal
        self._review = review

    def deadline_passed(self) -> None:
        self._review(self)
