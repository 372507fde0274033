"""Authentication as a policy: bearer tokens, and what routes demand of who shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import Part, Policy, Prepared
from apigw.policy.auth.jwks import KeySet, carry_over, swap
from apigw.policy.auth.jwt import Authenticator
from apigw.policy.auth.model import AuthOfRoute, auth_of, demanded
from apigw.policy.auth.own import OwnTokens
from apigw.policy.auth.stage import Authenticate

_TOKEN = frozenset({b"authorization"})


class AuthPolicy(Policy):
    """``now`` gives Unix seconds, ``key_set`` makes what fetches the keys at a URL."""

    name = "auth"

    def __init__(self, now: Callable[[], float], key_set: Callable[[str], KeySet]) -> None:
        self._now = now
        self._key_set = key_set

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedAuth:
        auth = auth_of(config)
        if auth is None:
            return PreparedAuth(config, None, {}, self._now)
        urls = [verifier.jwks_url for verifier in auth.jwt if verifier.jwks_url is not None]
        key_sets = carry_over(urls, previous.key_sets if previous is not None else {}, self._key_set)
        own: OwnTokens | None = getattr(others["oauth"], "own", None)
        return PreparedAuth(config, Authenticator(auth, key_sets, own, config.origins), key_sets, self._now)


class PreparedAuth(Prepared):
    def __init__(
        self,
        config: Config,
        authenticator: Authenticator | None,
        key_sets: Mapping[str, KeySet],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self.key_sets = key_sets
        self._now = now

    def part(self, route: RouteConfig) -> Part:
        of_route, demand = route.of(AuthOfRoute), demanded(self._config, route)
        stripped = frozenset() if of_route.forward_token else _TOKEN
        if demand == "none" or self._authenticator is None:
            return Part(stripped=stripped)
        required = demand == "required"
        stage = Authenticate(self._authenticator, required, of_route.roles, of_route.scopes, self._now)
        return Part(stages={"auth": stage}, stripped=stripped)

    def adopt(self, previous: Prepared | None) -> None:
        replaced = previous.key_sets if isinstance(previous, PreparedAuth) and previous is not self else {}
        swap(replaced, self.key_sets)
