"""The gateway's own token endpoint as a policy: it has no stages on routes, but resources of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.contract.policy import Context, Policy, Prepared
from apigw.contract.resource import Document
from apigw.policy.auth.hashing import SecretThreads
from apigw.policy.auth.jwt.own import PROVIDER
from apigw.policy.limits.exact_windows import ExactWindows
from apigw.policy.limits.in_page import local_store
from apigw.policy.limits.keys import address_key, network_key
from apigw.policy.oauth.endpoint import TokenEndpoint, metadata
from apigw.policy.oauth.issuance import Issuance
from apigw.policy.oauth.model import OAuth, oauth_of
from apigw.policy.oauth.page_families import PageFamilies
from apigw.policy.oauth.redis_families import RedisFamilies
from apigw.policy.oauth.refresh import FamilyStore, MemoryFamilies
from apigw.policy.oauth.resource import Token
from apigw.policy.oauth.rules import RULES
from apigw.policy.oauth.signing import Signer, agree, generate_for_all, load_signer, own_tokens
from apigw.shared.page import Page
from apigw.wire.request import Request


class OAuthPolicy(Policy):
    """Refresh tokens are stored in Redis if there is one, else in memory. Callers are counted in memory. What is in
    memory is of all workers, if there are several; so is a signing key that is generated."""

    name = "oauth"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._now = context.now
        self._issuance = Issuance(context.audit, context.client_address)
        self._client_address = context.client_address
        self._threads = SecretThreads(context.reactor)
        self._windows = local_store(context.page, context.reactor, context.now)
        self._allow = ExactWindows(self._windows)
        self._agree = None if context.page is None else partial(agree, context.page.keys)
        self._families: FamilyStore
        if context.redis is not None:
            self._families = RedisFamilies(context.redis)
        elif context.page is not None:
            self._families = PageFamilies(context.page.records)
        else:
            self._families = MemoryFamilies()

    @classmethod
    def share(cls, config: Config, page: Page) -> None:
        oauth = oauth_of(config)
        if oauth is not None:
            generate_for_all(oauth.signing, page.keys)

    def start(self) -> None:
        self._threads.start()
        self._windows.start()

    def stop(self) -> None:
        self._windows.stop()
        self._threads.stop()

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Prepared:
        oauth = oauth_of(config)
        if oauth is None:
            return Prepared()
        before = previous if isinstance(previous, PreparedOAuth) else None
        signer = load_signer(oauth.signing, config.origins, None if before is None else before.signer, self._agree)
        denies: Callable[[str, str], bool] = getattr(others.get("denials"), "denies", _denies_nobody)
        endpoint = TokenEndpoint(
            oauth,
            signer,
            self._allow,
            self._threads.run,
            self._families,
            config.origins,
            None if before is None else before.endpoint,
            partial(denies, PROVIDER),
        )
        return PreparedOAuth(oauth, endpoint, signer, self._now, self._caller, self._issuance)

    def _caller(self, request: Request) -> tuple[str, ...]:
        """The keys by which a caller is counted: that of limits, and for IPv6 also the /48, as a site may have."""
        address = self._client_address(request).decode("ascii")
        network = network_key(address)
        own = address_key(address).hex()
        return (own,) if network is None else (own, network.hex())


def _denies_nobody(provider: str, id: str) -> bool:
    return False


class PreparedOAuth(Prepared):
    def __init__(
        self,
        oauth: OAuth,
        endpoint: TokenEndpoint,
        signer: Signer,
        now: Callable[[], float],
        caller: Callable[[Request], tuple[str, ...]],
        issuance: Issuance,
    ) -> None:
        self._issuance = issuance
        self.endpoint = endpoint
        self.metadata = metadata(oauth)
        self.signer = signer
        self.own = own_tokens(oauth, signer)
        """The verifier of its tokens on the gateway's routes."""
        self._now = now
        self._caller = caller

    def resources(self) -> Mapping[str, IResource]:
        resources: dict[str, IResource] = {
            "/oauth/token": Token(self.endpoint, self._caller, self._now, self._issuance.note),
            "/.well-known/oauth-authorization-server": Document(partial(dict, self.metadata)),
        }
        if self.signer.algorithm == "RS256":
            # Made when somebody asks for it: a worker that nobody asks has 0.4 MiB less of its own.
            resources["/.well-known/jwks.json"] = Document(cache(self.signer.jwks))
        return resources
