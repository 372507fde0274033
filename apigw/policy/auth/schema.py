"""The keys of authentication: who is believed, and what routes demand of their callers."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, choice, duration, item, list_of, map_of, optional_file, secret, switch, text
from apigw.policy.auth.model import Auth, AuthOfGateway, AuthOfRoute, AuthSection, JWTVerifier

JWT: Rule = {
    "name": text(
        "Names the verifier. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "algorithm": choice("The signature algorithm of its tokens.", "RS256", "HS256", required=True),
    "public_key_file": optional_file("PEM file: the RSA key that verifies RS256.", "public key"),
    "secret": secret("The secret of HS256, at least 32 bytes. Better: `secret_file`."),
    "secret_file": optional_file(
        "Holds the secret of HS256. One newline at its end does not count.", "secret", into="secret"
    ),
    "jwks_file": optional_file("A JSON Web Key Set (RFC 7517).", "text"),
    "jwks_url": text("URL of a JSON Web Key Set, for RS256; fetched again before it expires.", "url", nullable=True),
    "key_id": text("The `kid` of tokens that this key verifies.", "printable", nullable=True),
    "issuer": text("The `iss` that tokens must have. Without it any is accepted.", "printable", nullable=True),
    "audience": list_of("Tokens must have one of these as `aud`. Without it any is accepted.", item("printable")),
    "leeway": duration("Tolerated clock difference for `exp`, `nbf` and `iat`.", "0s", "1h"),
    "user_claim": text("The claim with the caller's id. Dots reach into nested claims.", "claim"),
    "roles_claim": text("The claim with the list of roles. Dots reach into nested claims.", "claim"),
}

AUTH: Rule = {
    "jwt": list_of("Verifiers of JWTs. No two may accept the same token.", map_of("", JWTVerifier, JWT)),
}

OF_GATEWAY: Rule = {
    "auth_default": choice(
        "`auth` of routes that do not set it.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`required` where there is an `auth` section, else `none`",
    ),
}

OF_ROUTE: Rule = {
    "auth": choice(
        "`required`: 401 without a valid token. `optional`: 401 for an invalid token only. `none`: tokens are ignored.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`gateway.auth_default`",
    ),
    "roles": list_of("The caller needs at least one of these roles, else 403.", item("role")),
    "scopes": list_of("The token needs all of these scopes, else 403.", item("scope")),
    "forward_token": switch("Whether the service gets the `Authorization` header."),
}

KEYS = (
    Keys((), AuthSection, {"auth": map_of("Authentication: whose tokens are accepted.", Auth, AUTH, nullable=True)}),
    Keys(("gateway",), AuthOfGateway, OF_GATEWAY),
    Keys(("routes",), AuthOfRoute, OF_ROUTE),
)
