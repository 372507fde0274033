"""The policy of authentication: whose credentials a route takes, and what it demands of the caller."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Stage
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.policy.auth.api_keys.opening import by_header
from apigw.policy.auth.authenticator import Authenticator
from apigw.policy.auth.authorization import Demands
from apigw.policy.auth.basic.opening import users_of
from apigw.policy.auth.basic.passwords import Passwords
from apigw.policy.auth.bearer import Bearer
from apigw.policy.auth.hashing import SecretThreads
from apigw.policy.auth.introspection.model import IntrospectionProvider
from apigw.policy.auth.introspection.opaque import Opaque
from apigw.policy.auth.introspection.server import MOST_ANSWER, Server
from apigw.policy.auth.jwt.jwks import KeySet, Running, Source, carry_over
from apigw.policy.auth.jwt.keys import MAX_SET_BYTES
from apigw.policy.auth.jwt.own import OwnTokens
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.jwt.verifiers import source_of
from apigw.policy.auth.lasting import Lasting
from apigw.policy.auth.method import Method
from apigw.policy.auth.model import Auth, AuthOfRoute, auth_of, demanded
from apigw.policy.auth.mtls.authorities import authorities_of
from apigw.policy.auth.mtls.certificates import Certificates
from apigw.policy.auth.rules import RULES
from apigw.policy.auth.series import AuthSeries
from apigw.policy.auth.stage import Authenticate, AuthenticateByAny, CountFailure
from apigw.wire.fetch import Ask

_TOKEN = frozenset({b"authorization"})
_CERTIFICATES = frozenset({b"client-cert", b"client-cert-chain", b"x-forwarded-client-cert"})
"""What proxies that end TLS tell services of certificates (RFC 9440 §3, Envoy): a client may not say it."""


class AuthPolicy(Policy):
    name = "auth"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._now = context.now
        self._fetch = context.fetch(MAX_SET_BYTES)
        self._clock = context.reactor
        self._running = Running()
        self._threads = SecretThreads(context.reactor)
        self._ask = Ask(context.agent, MOST_ANSWER)
        self._series = series = AuthSeries(context.metrics.registry)
        self._counted = CountFailure(series.failed)
        self._lasting = Lasting(context.deadlines, context.now, series.failed)

    def start(self) -> None:
        """Its threads hash passwords. There are none before the first."""
        self._threads.start()

    def stop(self) -> None:
        """Stop all key sets, and the threads."""
        self._running.use({})
        self._threads.stop()

    def prepare(
        self, config: Config, previous: Any, others: Mapping[str, Prepared]
    ) -> Generator[None, None, PreparedAuth]:
        auth = auth_of(config)
        authenticator: Authenticator | None = None
        key_sets: dict[Source, KeySet] = {}
        if auth is not None:
            sources = [source for source in map(source_of, auth.jwt) if source is not None]
            key_sets = carry_over(sources, previous.key_sets if previous is not None else {}, self._key_set)
            own: OwnTokens | None = getattr(others["oauth"], "own", None)
            tokens = Tokens(auth, key_sets, own, config.origins)
            opaque = list(map(self._opaque, auth.introspection))
            methods: list[Method] = [Bearer(tokens, opaque, auth.max_token_size) if opaque else tokens]
            if auth.basic:
                users = yield from users_of(auth.basic, config.origins)
                methods.append(Passwords(users, self._threads.run))
            methods += by_header(auth.api_keys, config.origins)
            methods.append(Certificates((yield from authorities_of(auth.mtls, config.origins))))
            authenticator = Authenticator([method for method in methods if method.providers()])
        return PreparedAuth(self, config, authenticator, key_sets)

    def adopt(self, authenticator: Authenticator | None, key_sets: Mapping[Source, KeySet]) -> None:
        """These are in force."""
        self._running.use(key_sets)
        self._lasting.use(authenticator)

    def keep_series(self, auth: Auth | None) -> None:
        self._series.keep([] if auth is None else [each.name for each in auth.introspection])

    def part(self, authenticator: Authenticator, auth: Auth, required: bool, of_route: AuthOfRoute) -> Part:
        """What a route has that looks at credentials."""
        accepted = authenticator.accepted(of_route.providers)
        demands: Demands | None = None
        if of_route.roles or of_route.scopes or of_route.claims:
            demands, required = Demands(of_route.roles, of_route.scopes, of_route.claims), True
        stage: Stage
        if len(accepted) == 1 and accepted[0].method.field:
            stage = Authenticate(accepted[0], required, demands, self._now)
        else:
            stage = AuthenticateByAny(accepted, required, demands, self._now)
        return Part(
            stages={"auth": stage},
            on_refusal=(self._counted,),
            on_lasting=(self._lasting,),
            stripped=stripped(of_route, auth, open_to_all=False),
        )

    def _opaque(self, provider: IntrospectionProvider) -> Opaque:
        server = Server(provider, self._ask, self._clock, partial(self._series.introspected, provider.name))
        return Opaque(provider, server, self._clock.seconds)

    def _key_set(self, source: Source) -> KeySet:
        return KeySet(source, self._fetch, self._clock)


def stripped(of_route: AuthOfRoute, auth: Auth | None, open_to_all: bool) -> frozenset[bytes]:
    """The headers with credentials that the service does not get.

    Those of API keys it gets on no route: a caller may send its key everywhere. ``Authorization`` it does not get on a
    route that takes passwords, unless its provider says so.
    """
    if auth is None:
        return frozenset() if of_route.forward_token else _TOKEN
    names = {each.header.lower().encode("ascii") for each in auth.api_keys if not each.forward}
    taken = () if open_to_all else (each for each in auth.basic if _takes(of_route, each.name))
    if not of_route.forward_token or not all(each.forward for each in taken):
        names |= _TOKEN
    if auth.mtls:
        names |= _CERTIFICATES
    return frozenset(names)


def _takes(of_route: AuthOfRoute, provider: str) -> bool:
    return of_route.providers is None or provider in of_route.providers


class PreparedAuth(Prepared):
    def __init__(
        self,
        policy: AuthPolicy,
        config: Config,
        authenticator: Authenticator | None,
        key_sets: Mapping[Source, KeySet],
    ) -> None:
        self._policy = policy
        self._config = config
        self._authenticator = authenticator
        self._parts: dict[tuple[AuthOfRoute, str], Part] = {}
        """Those of thousands of routes are often the same."""
        self.key_sets = key_sets

    def part(self, route: RouteConfig) -> Part:
        of_route, demand = route.of(AuthOfRoute), demanded(self._config, route)
        if of_route.claims:  # in which ``1`` and ``true`` are equal to Python
            return self._part(of_route, demand)
        found = self._parts.get((of_route, demand))
        if found is None:
            found = self._parts[of_route, demand] = self._part(of_route, demand)
        return found

    def _part(self, of_route: AuthOfRoute, demand: str) -> Part:
        auth = auth_of(self._config)
        if demand == "none" or self._authenticator is None or auth is None:
            names = stripped(of_route, auth, open_to_all=True)
            return Part(stripped=names) if names else NOTHING
        return self._policy.part(self._authenticator, auth, demand == "required", of_route)

    def authorities(self) -> Sequence[str]:
        auth = auth_of(self._config)
        return () if auth is None else [each.ca_file for each in auth.mtls]

    def adopt(self, previous: Prepared | None) -> None:
        before = previous._authenticator if isinstance(previous, PreparedAuth) else None
        if self._authenticator is not None and before is not None:
            self._authenticator.take_over(before)
        self._policy.adopt(self._authenticator, self.key_sets)

    def keep_series(self) -> None:
        self._policy.keep_series(auth_of(self._config))
