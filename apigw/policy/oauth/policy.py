"""The gateway's own token endpoint as a policy: it demands nothing of routes, and answers paths of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.contract.policy import Policy, Prepared
from apigw.contract.resource import Document
from apigw.policy.oauth.endpoint import Allow, Run, TokenEndpoint, metadata
from apigw.policy.oauth.model import OAuth, oauth_of
from apigw.policy.oauth.refresh import FamilyStore
from apigw.policy.oauth.resource import Token
from apigw.policy.oauth.signing import Signer, load_signer, own_tokens
from apigw.wire.request import Request

Address = Callable[[Request], str]
"""What the token endpoint counts a caller by."""


class OAuthPolicy(Policy):
    """``now`` gives Unix seconds; ``allow`` counts, ``run`` works in threads, ``families`` keeps refresh tokens."""

    name = "oauth"

    def __init__(
        self, now: Callable[[], float], allow: Allow, run: Run, families: FamilyStore, address: Address
    ) -> None:
        self._now = now
        self._allow = allow
        self._run = run
        self._families = families
        self._address = address

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Prepared:
        oauth = oauth_of(config)
        if oauth is None:
            return Prepared()
        before = previous.signer if isinstance(previous, PreparedOAuth) else None
        signer = load_signer(oauth.signing, config.origins, before)
        endpoint = TokenEndpoint(oauth, signer, self._allow, self._run, self._families, config.origins)
        return PreparedOAuth(oauth, endpoint, signer, self._now, self._address)


class PreparedOAuth(Prepared):
    def __init__(
        self,
        oauth: OAuth,
        endpoint: TokenEndpoint,
        signer: Signer,
        now: Callable[[], float],
        address: Address,
    ) -> None:
        self.endpoint = endpoint
        self.metadata = metadata(oauth)
        self.signer = signer
        self.own = own_tokens(oauth, signer)
        """What its tokens are verified with on the gateway's routes."""
        self._now = now
        self._address = address

    def resources(self) -> Mapping[str, IResource]:
        jwks = self.signer.jwks()
        resources: dict[str, IResource] = {
            "/oauth/token": Token(self.endpoint, self._address, self._now),
            "/.well-known/oauth-authorization-server": Document(partial(dict, self.metadata)),
        }
        if jwks is not None:
            resources["/.well-known/jwks.json"] = Document(partial(dict, jwks))
        return resources
