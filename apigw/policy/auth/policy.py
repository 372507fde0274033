"""The policy of authentication: bearer tokens, roles and scopes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import Context, Part, Policy, Prepared
from apigw.policy.auth.jwks import KeySet, Running, carry_over
from apigw.policy.auth.jwt import Authenticator
from apigw.policy.auth.keys import MAX_SET_BYTES
from apigw.policy.auth.lasting import Lasting
from apigw.policy.auth.model import AuthOfRoute, auth_of, demanded
from apigw.policy.auth.own import OwnTokens
from apigw.policy.auth.rules import RULES
from apigw.policy.auth.stage import Authenticate

_TOKEN = frozenset({b"authorization"})


class AuthPolicy(Policy):
    name = "auth"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._now = context.now
        self._fetch = context.fetch(MAX_SET_BYTES)
        self._clock = context.reactor
        self._running = Running()
        self._lasting = Lasting(context.deadlines, context.now)

    def stop(self) -> None:
        """Stop all key sets."""
        self._running.use({})

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedAuth:
        auth = auth_of(config)
        if auth is None:
            return PreparedAuth(config, None, {}, self._running, self._lasting, self._now)
        urls = [verifier.jwks_url for verifier in auth.jwt if verifier.jwks_url is not None]
        key_sets = carry_over(urls, previous.key_sets if previous is not None else {}, self._key_set)
        own: OwnTokens | None = getattr(others["oauth"], "own", None)
        authenticator = Authenticator(auth, key_sets, own, config.origins)
        return PreparedAuth(config, authenticator, key_sets, self._running, self._lasting, self._now)

    def _key_set(self, url: str) -> KeySet:
        return KeySet(url, self._fetch, self._clock)


class PreparedAuth(Prepared):
    def __init__(
        self,
        config: Config,
        authenticator: Authenticator | None,
        key_sets: Mapping[str, KeySet],
        running: Running,
        lasting: Lasting,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self.key_sets = key_sets
        self._running = running
        self._lasting = lasting
        self._now = now

    def part(self, route: RouteConfig) -> Part:
        of_route, demand = route.of(AuthOfRoute), demanded(self._config, route)
        stripped = frozenset() if of_route.forward_token else _TOKEN
        if demand == "none" or self._authenticator is None:
            return Part(stripped=stripped)
        required = demand == "required"
        stage = Authenticate(self._authenticator, required, of_route.roles, of_route.scopes, self._now)
        return Part(stages={"auth": stage}, on_lasting=(self._lasting,), stripped=stripped)

    def adopt(self, previous: Prepared | None) -> None:
        self._running.use(self.key_sets)
        self._lasting.use(self._authenticator)
