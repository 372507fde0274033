"""The keys of the YAML for API keys."""

from __future__ import annotations

from apigw.config.keys import Rule, file, list_of, map_of, switch, text
from apigw.policy.auth.api_keys.model import APIKeys

PROVIDER: Rule = {
    "name": text(
        "Names the provider. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "file": file("The keys, hashed: made by `apigw keys`, and read anew at a reload.", "API keys", required=True),
    "header": text("The header in which callers send their key.", "key header"),
    "forward": switch("Whether services get that header. It is removed on every route otherwise."),
}

INSTEAD = dict.fromkeys(("key", "keys", "consumers"), "keys are in a file, which `apigw keys make FILE ID` writes")

API_KEYS: Rule = list_of("Providers of API keys.", map_of("", APIKeys, PROVIDER, instead=INSTEAD))
