# Compiled: see docs/decisions/compiled.md
"""The stage of authentication: identifies and authorizes the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.contract.awaited import wait_for
from apigw.contract.exchange import Exchange, OnRefusal, Outcome, Stage, Waiting
from apigw.contract.principal import Principal
from apigw.errors import GatewayError, Unauthorized
from apigw.policy.auth.authorization import Demands
from apigw.policy.auth.method import Method, Providers

REQUIRED: Final = {
    b"Bearer": "A token is required.",
    b"Basic": "A name and a password are required.",
    b"Certificate": "A client certificate is required.",
    b"Key": "An API key is required.",
}
"""What a request without credentials is told where the route takes one kind, by the scheme of its challenge."""
ANYTHING: Final = "Credentials are required."


class Accepted:
    """A kind of credentials that a route takes, by some of its providers. ``others`` are the challenges of its other
    kinds."""

    def __init__(self, method: Method, providers: Providers, others: Sequence[bytes] = ()) -> None:
        self.method = method
        self.providers = providers
        self.others = tuple(others)


class Authenticate(Stage):
    """A route that takes one kind of credentials. Unless ``required``, a request without any passes; an invalid one
    never does. ``now`` is Unix time."""

    def __init__(self, accepted: Accepted, required: bool, demands: Demands | None, now: Callable[[], float]) -> None:
        self._accepted = accepted
        self._method = accepted.method
        self._field = accepted.method.field
        self._providers = accepted.providers
        self._required = required
        self._demands = demands
        self._roles = frozenset[str]() if demands is None else demands.roles
        self._scopes = () if demands is None else demands.scopes
        self._demands_claims = demands is not None and bool(demands.claims)
        self._now = now

    def run(self, exchange: Exchange) -> Outcome:
        """Authenticate. Waits only where the method must."""
        field = self._field
        sent = [value for name, value in exchange.request.headers if name == field]
        now = self._now()
        known = self._method.remembered(sent, now)
        if known is None or (self._providers is not None and known.provider not in self._providers):
            return self._unknown(exchange, sent, now)
        exchange.principal = known
        if (
            (self._roles and self._roles.isdisjoint(known.roles))
            or not known.scopes.issuperset(self._scopes)
            or self._demands_claims
        ):
            identified(known, self._demands, exchange)
        return None

    def _unknown(self, exchange: Exchange, sent: list[bytes], now: float) -> Outcome:
        """A credential that was not seen before, or none: verifying takes longer than all else that a request costs."""
        if sent or self._required:
            screen(exchange)
        caller = exchange.peers.client_address(exchange.request)
        found = self._method.verify(sent, now, self._providers, caller)
        if found is None and self._required:
            raise missing([self._method.challenge(self._providers)])
        return go_on(found, self._demands, (), exchange)


class AuthenticateByAny(Stage):
    """A route that takes several kinds of credentials, or one that is in no header.

    The first in the order of ``accepted`` that a request has decides; the others are not looked at.
    """

    def __init__(
        self, accepted: Sequence[Accepted], required: bool, demands: Demands | None, now: Callable[[], float]
    ) -> None:
        self._accepted = tuple(accepted)
        self._required = required
        self._demands = demands
        self._now = now

    def run(self, exchange: Exchange) -> Outcome:
        now, screened = self._now(), False
        for accepted in self._accepted:
            method, providers = accepted.method, accepted.providers
            sent = method.sent(exchange.request)
            if not sent:
                continue
            known = method.remembered(sent, now)
            if known is not None and (providers is None or known.provider in providers):
                exchange.principal = known
                if self._demands is not None:
                    self._demands.check(known)
                return None
            if not screened:
                screened = True
                screen(exchange)
            try:
                found = method.verify(sent, now, providers, exchange.peers.client_address(exchange.request))
            except Unauthorized as error:
                raise named(error, accepted.others) from None
            if found is not None:
                return go_on(found, self._demands, accepted.others, exchange)
        if not self._required:
            return None
        if not screened:
            screen(exchange)
        raise missing([each.method.challenge(each.providers) for each in self._accepted])


def screen(exchange: Exchange) -> None:
    """What others ask before costly work for an unknown caller. Raises their refusal."""
    for each in exchange.route.screens:
        each.run(exchange)


def missing(challenges: Sequence[bytes]) -> Unauthorized:
    """The 401 for a request without credentials, with every challenge that would be accepted.

    For tokens it is without an error code (RFC 6750 §3.1). Each is a field of its own: clients that know one kind of
    challenge often cannot take apart a list of several.
    """
    kinds = {challenge.partition(b" ")[0] for challenge in challenges}
    detail = REQUIRED.get(kinds.pop(), ANYTHING) if len(kinds) == 1 else ANYTHING
    return Unauthorized(detail, [(b"www-authenticate", challenge) for challenge in challenges], "missing")


def named(error: Unauthorized, others: Sequence[bytes]) -> Unauthorized:
    """``error`` with the challenges of the other kinds that the route takes."""
    error.headers += [(b"www-authenticate", challenge) for challenge in others]
    return error


def go_on(
    found: Principal | Deferred[Principal] | None, demands: Demands | None, others: Sequence[bytes], exchange: Exchange
) -> Outcome:
    """With what has been found of the caller."""
    if found is None:
        return None
    if isinstance(found, Principal):
        identified(found, demands, exchange)
        return None
    return wait_for(
        exchange,
        found.addCallbacks(identified, failed, callbackArgs=(demands, exchange), errbackArgs=(others,)),
    )


def identified(principal: Principal, demands: Demands | None, exchange: Exchange) -> None:
    exchange.principal = principal
    if demands is not None:
        demands.check(principal)


def failed(failure: Failure, others: Sequence[bytes]) -> Failure:
    if others and isinstance(failure.value, Unauthorized):
        named(failure.value, others)
    return failure


class CountFailure(OnRefusal):
    """Counts callers who are turned away; ``failed`` is told the reason."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if error.reason is not None:
            self._failed(error.reason)
        return None
