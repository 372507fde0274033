"""The keys of the YAML for HTTP Basic authentication."""

from __future__ import annotations

from apigw.config.keys import Rule, file, list_of, map_of, switch, text
from apigw.policy.auth.basic.model import BasicProvider

PROVIDER: Rule = {
    "name": text(
        "Names the provider. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "file": file(
        "A line for each caller: `NAME:HASH` or `NAME:HASH:ROLE,ROLE`. `apigw hash-secret` makes the hashes.",
        "passwords",
        required=True,
    ),
    "forward": switch("Whether services get the `Authorization` header of routes that take this provider."),
}

INSTEAD = dict.fromkeys(
    ("users", "passwords", "credentials", "username", "password"),
    "names are in a file, with hashes that `apigw hash-secret` makes",
)

BASIC: Rule = list_of("Providers of HTTP Basic authentication.", map_of("", BasicProvider, PROVIDER, instead=INSTEAD))
