"""The configuration of the gateway's own tokens, as values."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config, Secret
from apigw.policy.auth.model import auth_of


@frozen
class AcceptedKey:
    """A key that verifies the gateway's own tokens but does not sign: the previous or the next one."""

    key_id: str
    public_key_file: str | None = None
    secret: Secret | None = None


@frozen
class OAuthSigning:
    """``accepted`` holds the other keys while the signing key is rotated; with RS256 they are published too.

    RS256 without ``private_key_file`` signs with a key that is generated at start, whose id begins with ``key_id``.
    """

    algorithm: str
    key_id: str
    private_key_file: str | None = None
    secret: Secret | None = None
    accepted: tuple[AcceptedKey, ...] = ()


@frozen
class OAuthClient:
    """``secret_hash`` holds several hashes while a secret is rotated."""

    id: str
    secret_hash: tuple[str, ...]
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


@frozen
class Quota:
    limit: int
    window: float


@frozen
class OAuth:
    signing: OAuthSigning
    issuer: str
    audience: tuple[str, ...] = ()
    token_lifetime: float = 3600.0
    rate_limit: Quota = Quota(10, 60.0)
    refresh_tokens: bool = False
    clients: tuple[OAuthClient, ...] = ()


@frozen
class OAuthOfAuth:
    oauth: OAuth | None = None


def oauth_of(config: Config) -> OAuth | None:
    auth = auth_of(config)
    return None if auth is None else auth.of(OAuthOfAuth).oauth
