"""The keys of authentication: who is believed, and what routes demand of their callers."""

from __future__ import annotations

from apigw.config.keys import Keys, Rule, choice, item, list_of, map_of, size, switch
from apigw.policy.auth.api_keys.schema import API_KEYS
from apigw.policy.auth.basic.schema import BASIC
from apigw.policy.auth.claims_schema import claims
from apigw.policy.auth.introspection.schema import INTROSPECTION
from apigw.policy.auth.jwt.schema import JWT
from apigw.policy.auth.model import Auth, AuthOfGateway, AuthOfRoute, AuthSection
from apigw.policy.auth.mtls.schema import MTLS

AUTH: Rule = {
    "jwt": JWT,
    "api_keys": API_KEYS,
    "basic": BASIC,
    "mtls": MTLS,
    "introspection": INTROSPECTION,
    "max_token_size": size("Larger bearer tokens are answered 401.", "1KiB", "1MiB"),
}

MEANT = {
    **dict.fromkeys(("keys", "api_key", "apikey", "apikeys", "key_auth"), "api_keys"),
    **dict.fromkeys(("basic_auth", "htpasswd", "passwords", "users"), "basic"),
    **dict.fromkeys(("client_certificates", "certificates", "x509", "tls"), "mtls"),
    **dict.fromkeys(("introspect", "oauth2_introspection", "opaque"), "introspection"),
    **dict.fromkeys(("oidc", "openid", "bearer", "tokens"), "jwt: [{name: …, openid: true, issuer: …}]"),
    **dict.fromkeys(("audience", "issuer", "jwks_uri", "jwks_url"), "jwt: [{name: …, issuer: …, jwks_url: …}]"),
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
        "`required`: 401 without a valid credential. `optional`: 401 for an invalid one only; also for none, where the "
        "route demands roles, scopes or claims. `none`: credentials are ignored.",
        "required",
        "optional",
        "none",
        nullable=True,
        default="`gateway.auth_default`",
        meant={
            **dict.fromkeys(("api_key", "api_keys", "basic", "bearer", "jwt", "oauth"), "providers, with its name"),
            **dict.fromkeys(("anonymous", "disabled", "open", "public"), "'none'"),
        },
    ),
    "providers": list_of(
        "The providers whose credentials are taken, by their names; `oauth` are the gateway's own tokens.",
        item("name"),
        minlength=1,
        nullable=True,
        default="all",
    ),
    "roles": list_of("The caller needs at least one of these roles, else 403.", item("role")),
    "scopes": list_of("The token needs all of these scopes, else 403.", item("scope")),
    "claims": claims("What claims of the token must be, else 403."),
    "forward_token": switch("Whether the service gets the `Authorization` header."),
}

KEYS = (
    Keys((), AuthSection, {"auth": map_of("Authentication: who is believed.", Auth, AUTH, nullable=True, meant=MEANT)}),
    Keys(("gateway",), AuthOfGateway, OF_GATEWAY),
    Keys(("routes",), AuthOfRoute, OF_ROUTE),
)
