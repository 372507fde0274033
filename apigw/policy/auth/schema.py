"""The keys of authentication: who is believed, and what routes demand of their callers."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, choice, duration, item, list_of, map_of, optional_file, secret, switch, text
from apigw.policy.auth.model import Auth, AuthOfGateway, AuthOfRoute, AuthSection, JWTVerifier

JWT: Rule = {
    "name": text(
        "Names the verifier: part of who the caller is, and sent to services as `X-Auth-Provider`.",
        "name",
        required=True,
    ),
    "algorithm": choice("One algorithm a key.", "RS256", "HS256", required=True),
    "public_key_file": optional_file("PEM file: the RSA key that verifies RS256.", "public key"),
    "secret": secret("The secret of HS256, at least 32 bytes. Better: `secret_file`."),
    "secret_file": optional_file(
        "Holds the secret of HS256. One newline at its end does not count.", "secret", into="secret"
    ),
    "jwks_file": optional_file("A JSON Web Key Set (RFC 7517).", "text"),
    "jwks_url": text("Where to fetch a key set, for RS256; refreshed before it expires.", "url", nullable=True),
    "key_id": text("The `kid` of tokens that this key verifies.", "printable", nullable=True),
    "issuer": text("The `iss` that tokens must have; checked when given.", "printable", nullable=True),
    "audience": list_of("Tokens must be for any of these.", item("printable")),
    "leeway": duration("How far clocks may be apart.", "0s", "1h"),
    "user_claim": text("The claim that names the caller. Dots reach into nested claims.", "claim"),
    "roles_claim": text("The claim that lists the roles. Dots reach into nested claims.", "claim"),
}

AUTH: Rule = {
    "jwt": list_of("Whose tokens are believed. No two may accept the same token.", map_of("", JWTVerifier, JWT)),
}

OF_GATEWAY: Rule = {
    "auth_default": choice(
        "What a route without `auth` demands.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`required` where there is an `auth` section, else `none`",
    ),
}

OF_ROUTE: Rule = {
    "auth": choice(
        "`required`: 401 without a token. `optional`: only a bad one is 401. `none`: tokens are not looked at.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`gateway.auth_default`",
    ),
    "roles": list_of("The caller needs any of them; 403 otherwise.", item("role")),
    "scopes": list_of("The caller needs all of them; 403 otherwise.", item("scope")),
    "forward_token": switch("`false`: the `Authorization` header does not reach the service."),
}

KEYS = (
    Keys((), AuthSection, {"auth": map_of("Who may call.", Auth, AUTH, nullable=True)}),
    Keys(("gateway",), AuthOfGateway, OF_GATEWAY),
    Keys(("routes",), AuthOfRoute, OF_ROUTE),
)
