"""The keys of verifiers of JWTs."""

from __future__ import annotations

from apigw.config.keys import (
    Rule,
    duration,
    item,
    list_of,
    map_of,
    one_or_several,
    optional_file,
    secret,
    switch,
    text,
)
from apigw.policy.auth.claims_schema import claims
from apigw.policy.auth.jwt.model import JWTVerifier

VERIFIER: Rule = {
    "name": text(
        "Names the provider. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "algorithm": one_or_several(
        "The signature algorithm of its tokens, or several. A key is used only for what it can do.",
        "algorithm",
        default="with a key set all but HS256, else required",
    ),
    "public_key_file": optional_file("PEM file: the RSA, EC or Ed25519 key that verifies its tokens.", "public key"),
    "secret": secret("The secret of HS256, at least 32 bytes. Better: `secret_file`."),
    "secret_file": optional_file(
        "Holds the secret of HS256. One newline at its end does not count.", "secret", into="secret"
    ),
    "jwks_file": optional_file("A JSON Web Key Set (RFC 7517).", "text"),
    "jwks_url": text("URL of a JSON Web Key Set; fetched again before it expires.", "url", nullable=True),
    "openid": switch(
        "The keys are those that the issuer's metadata names: of an OpenID provider, or of an OAuth authorization "
        "server (RFC 8414). `issuer` must be its URL."
    ),
    "key_id": text("The `kid` of tokens that this key verifies.", "printable", nullable=True),
    "issuer": text("The `iss` that tokens must have. Without it any is accepted.", "printable", nullable=True),
    "audience": list_of("Tokens must have one of these as `aud`. Without it any is accepted.", item("printable")),
    "leeway": duration("Tolerated clock difference for `exp`, `nbf` and `iat`.", "0s", "1h"),
    "token_type": text(
        "The `typ` that tokens must have, such as `at+jwt`; capitals and `application/` do not matter.",
        "printable",
        nullable=True,
    ),
    "claims": claims("What claims of its tokens must be; other tokens are refused."),
    "user_claim": text("The claim with the caller's id. Dots reach into nested claims.", "claim"),
    "roles_claim": text("The claim with the list of roles. Dots reach into nested claims.", "claim"),
    "roles_allowed": list_of(
        "The roles that this provider may give, with `*` for any characters; other roles in its tokens are dropped. "
        "Without it all are kept.",
        item("role pattern"),
    ),
}

MEANT = {
    "alg": "algorithm",
    "algorithms": "algorithm",
    "iss": "issuer",
    "aud": "audience",
    "kid": "key_id",
    "typ": "token_type",
    "jwks": "jwks_file or jwks_url",
    "jwks_uri": "jwks_url",
    "public_key": "public_key_file",
    **dict.fromkeys(("discovery", "discovery_url", "metadata", "metadata_url", "well_known", "oidc"), "openid: true"),
}

JWT: Rule = list_of(
    "Providers of JWTs. No two may accept the same token.", map_of("", JWTVerifier, VERIFIER, meant=MEANT)
)
