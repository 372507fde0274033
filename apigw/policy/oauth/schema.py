"""The keys of the gateway's own tokens."""

from __future__ import annotations

from apigw.config.keys import (
    MONTH,
    Keys,
    Rule,
    choice,
    duration,
    item,
    list_of,
    map_of,
    optional_file,
    secret,
    switch,
    text,
    whole,
)
from apigw.policy.oauth.model import AcceptedKey, OAuth, OAuthClient, OAuthOfAuth, OAuthSigning, Quota

QUOTA: Rule = {
    "limit": whole("How many requests pass in a window.", 1, 1_000_000_000, required=True),
    "window": duration("The length of the sliding window.", "1ms", MONTH, required=True),
}

ACCEPTED: Rule = {
    "key_id": text("The `kid` of the tokens that it signed, or will sign.", "printable", required=True),
    "public_key_file": optional_file("PEM file: the public half of an RSA key, for RS256.", "public key"),
    "secret": secret("The secret, for HS256. Better: `secret_file`."),
    "secret_file": optional_file(
        "Holds the secret, for HS256. One newline at its end does not count.", "secret", into="secret"
    ),
}

SIGNING: Rule = {
    "algorithm": choice("How tokens are signed.", "RS256", "HS256", required=True),
    "key_id": text("The `kid` of the tokens.", "printable", required=True),
    "private_key_file": optional_file(
        "PEM file: the RSA key for RS256, at least 2048 bits. Without it, the gateway makes a new key at each "
        "start, so a restart invalidates all tokens.",
        "signing key",
    ),
    "secret": secret("The secret of HS256, at least 32 bytes. Better: `secret_file`."),
    "secret_file": optional_file(
        "Holds the secret of HS256. One newline at its end does not count.", "secret", into="secret"
    ),
    "accepted": list_of(
        "More keys that verify the gateway's tokens, for the rotation of the signing key.",
        map_of("", AcceptedKey, ACCEPTED),
    ),
}

CLIENT: Rule = {
    "id": text("Its `client_id`.", "client id", required=True),
    "secret_hash": list_of(
        "Made by `apigw hash-secret`. Several while a secret is rotated.",
        item("hash"),
        required=True,
        minlength=1,
        secret=True,
    ),
    "roles": list_of("The roles in its tokens.", item("role")),
    "scopes": list_of("The scopes that it may request.", item("scope")),
}

OAUTH: Rule = {
    "signing": map_of("The key that signs tokens.", OAuthSigning, SIGNING, required=True),
    "issuer": text("The `iss` of the tokens.", "printable", required=True),
    "audience": list_of("The `aud` of the tokens.", item("printable")),
    "token_lifetime": duration("How long a token is valid.", "1s", MONTH),
    "rate_limit": map_of("Limit of token requests for each client.", Quota, QUOTA),
    "refresh_tokens": switch("Whether clients get refresh tokens."),
    "clients": list_of("The clients that may get tokens.", map_of("", OAuthClient, CLIENT)),
}

OF_AUTH: Rule = {
    "oauth": map_of("The gateway's own token endpoint, `POST /oauth/token`.", OAuth, OAUTH, nullable=True),
}

KEYS = (Keys(("auth",), OAuthOfAuth, OF_AUTH),)
