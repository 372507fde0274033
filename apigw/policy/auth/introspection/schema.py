"""The keys of the YAML for token introspection."""

from __future__ import annotations

from apigw.config.keys import Rule, duration, item, list_of, map_of, optional_file, secret, text
from apigw.policy.auth.claims_schema import claims
from apigw.policy.auth.introspection.model import IntrospectionProvider

PROVIDER: Rule = {
    "name": text(
        "Names the provider. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "url": text("The introspection endpoint of the authorization server.", "url", required=True),
    "client_id": text("The gateway's id there.", "printable", required=True),
    "client_secret": secret("Its secret. Better: `client_secret_file`."),
    "client_secret_file": optional_file(
        "Holds the secret. One newline at its end does not count.", "client secret", into="client_secret"
    ),
    "cache": duration(
        "How long a token counts as active without being asked for again, at most to its `exp`. `0s` asks for each "
        "request.",
        "0s",
        "1h",
    ),
    "timeout": duration("How long an answer may take, else 503.", "10ms", "30s"),
    "issuer": text(
        "The `iss` that answers must have. Without it any is accepted, or none.", "printable", nullable=True
    ),
    "audience": list_of("Tokens must have one of these as `aud`. Without it any is accepted.", item("printable")),
    "token_type": text(
        "The `token_type` that answers must have, such as `Bearer`; capitals do not matter.", "printable", nullable=True
    ),
    "claims": claims("What members of the answer must be; other tokens are refused."),
    "user_claim": text("The member with the caller's id. Dots reach into nested ones.", "claim"),
    "roles_claim": text("The member with the list of roles. Dots reach into nested ones.", "claim"),
    "roles_allowed": list_of(
        "The roles that this provider may give, with `*` for any characters; other roles are dropped. Without it all "
        "are kept.",
        item("role pattern"),
    ),
}

MEANT = {
    "endpoint": "url",
    "introspection_endpoint": "url",
    "id": "client_id",
    "secret": "client_secret",
    "ttl": "cache",
    "iss": "issuer",
    "aud": "audience",
}

INTROSPECTION: Rule = list_of(
    "Providers of opaque tokens, which are asked about them (RFC 7662).",
    map_of("", IntrospectionProvider, PROVIDER, meant=MEANT),
)
