# Compiled: see docs/decisions/compiled.md
"""The stage of authentication: identifies and authorizes the caller."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from apigw.contract.exchange import Exchange, Outcome, Stage, wait_for
from apigw.contract.principal import Principal
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
        found = self._authenticator.authenticate(tokens, self._now())
        # Deferred is an abstract class: to ask first whether it is one costs more than the answer to who calls.
        if type(found) is Principal:
            exchange.principal = found
            if (self._roles and self._roles.isdisjoint(found.roles)) or not found.scopes.issuperset(self._scopes):
                authorize(found, self._roles, self._scopes)
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
