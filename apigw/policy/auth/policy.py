"""The policy of authentication: bearer tokens, roles and scopes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.policy.auth.jwks import KeySet, Running, carry_over
from apigw.policy.auth.jwt import Authenticator
from apigw.policy.auth.keys import MAX_SET_BYTES
from apigw.policy.auth.lasting import Lasting
from apigw.policy.auth.model import AuthOfRoute, auth_of, demanded
from apigw.policy.auth.own import OwnTokens
from apigw.policy.auth.rules import RULES
from apigw.policy.auth.series import AuthSeries
from apigw.policy.auth.stage import Authenticate, CountFailure

_TOKEN = frozenset({b"authorization"})


class AuthPolicy(Policy):
    name = "auth"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._now = context.now
        self._fetch = context.fetch(MAX_SET_BYTES)
        self._clock = context.reactor
        self._running = Running()
        series = AuthSeries(context.metrics.registry)
        self._counted = CountFailure(series.failed)
        self._lasting = Lasting(context.deadlines, context.now, series.failed)

    def stop(self) -> None:
        """Stop all key sets."""
        self._running.use({})

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedAuth:
        auth = auth_of(config)
        authenticator: Authenticator | None = None
        key_sets: dict[str, KeySet] = {}
        if auth is not None:
            urls = [verifier.jwks_url for verifier in auth.jwt if verifier.jwks_url is not None]
            key_sets = carry_over(urls, previous.key_sets if previous is not None else {}, self._key_set)
            own: OwnTokens | None = getattr(others["oauth"], "own", None)
            authenticator = Authenticator(auth, key_sets, own, config.origins)
        return PreparedAuth(self, config, authenticator, key_sets)

    def adopt(self, authenticator: Authenticator | None, key_sets: Mapping[str, KeySet]) -> None:
        """These are in force."""
        self._running.use(key_sets)
        self._lasting.use(authenticator)

    def stages(self, authenticator: Authenticator, required: bool, of_route: AuthOfRoute) -> Part:
        """What a route has that looks at tokens."""
        stage = Authenticate(authenticator, required, of_route.roles, of_route.scopes, self._now)
        return Part(
            stages={"auth": stage},
            on_refusal=(self._counted,),
            on_lasting=(self._lasting,),
            stripped=frozenset() if of_route.forward_token else _TOKEN,
        )

    def _key_set(self, url: str) -> KeySet:
        return KeySet(url, self._fetch, self._clock)


class PreparedAuth(Prepared):
    def __init__(
        self,
        policy: AuthPolicy,
        config: Config,
        authenticator: Authenticator | None,
        key_sets: Mapping[str, KeySet],
    ) -> None:
        self._policy = policy
        self._config = config
        self._authenticator = authenticator
        self.key_sets = key_sets

    def part(self, route: RouteConfig) -> Part:
        of_route, demand = route.of(AuthOfRoute), demanded(self._config, route)
        if demand == "none" or self._authenticator is None:
            return NOTHING if of_route.forward_token else Part(stripped=_TOKEN)
        return self._policy.stages(self._authenticator, demand == "required", of_route)

    def adopt(self, previous: Prepared | None) -> None:
        before = previous._authenticator if isinstance(previous, PreparedAuth) else None
        if self._authenticator is not None and before is not None:
            self._authenticator.take_over(before)
        self._policy.adopt(self._authenticator, self.key_sets)
