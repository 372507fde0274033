# Compiled: see docs/decisions/compiled.md
"""The stage of authentication: identifies and authorizes the caller."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from apigw.contract.exchange import Exchange, OnRefusal, Outcome, Stage, Waiting, wait_for
from apigw.contract.principal import Principal
from apigw.errors import GatewayError
from apigw.policy.auth.jwt import Authenticator
from apigw.policy.auth.principal import authorize, missing_token


class Authenticate(Stage):
    """Unless ``required``, a request without a token passes; an invalid token never does. ``now`` is Unix time."""

    def __init__(
        self,
        authenticator: Authenticator,
        required: bool,
        roles: tuple[str, ...],
        scopes: tuple[str, ...],
        now: Callable[[], float],
    ) -> None:
        self._authenticator = authenticator
        self._required = required
        self._roles = frozenset(roles)
        self._scopes = scopes
        self._now = now

    def run(self, exchange: Exchange) -> Outcome:
        """Authenticate. Waits only for the fetch of a key set."""
        tokens = [value for name, value in exchange.request.headers if name == b"authorization"]
        now = self._now()
        known = self._authenticator.remembered(tokens, now)
        if known is None:
            return self._verify(exchange, tokens, now)
        exchange.principal = known
        if (self._roles and self._roles.isdisjoint(known.roles)) or not known.scopes.issuperset(self._scopes):
            authorize(known, self._roles, self._scopes)
        return None

    def _verify(self, exchange: Exchange, tokens: list[bytes], now: float) -> Outcome:
        """A token that was not seen before, or none: verifying takes longer than all else that a request costs."""
        if tokens or self._required:
            for screen in exchange.route.screens:
                screen.run(exchange)
        found = self._authenticator.verify(tokens, now)
        if isinstance(found, Principal):
            self._verified(found, exchange)
            return None
        if found is None:
            if self._required:
                raise missing_token()
            return None
        assert isinstance(found, Deferred)
        return wait_for(exchange, found.addCallback(self._verified, exchange))

    def _verified(self, principal: Principal, exchange: Exchange) -> None:
        exchange.principal = principal
        authorize(principal, self._roles, self._scopes)


class CountFailure(OnRefusal):
    """Counts callers who are turned away; ``failed`` is told the reason."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        if error.reason is not None:
            self._failed(error.reason)
        return None
