"""The configurations that the guide has for known identity providers, against servers with documents as theirs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from attrs import Factory, frozen
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.daemon import Daemon, gateway
from support.guarded import identity
from support.services import Received, Service

from .conftest import Start

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/identity-providers.md"
KEY, OTHER = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("signs", "encrypts"))


@frozen
class Like:
    """What a provider publishes and issues, as its documentation has it. ``keys`` is the path of its key set."""

    keys: str
    claims: dict[str, Any]
    caller: tuple[str, str]
    """Id and roles."""
    refused: dict[str, Any]
    """Changes of a token that must not be taken."""
    members: dict[str, Any] = Factory(dict)
    """Of its keys."""
    header: dict[str, Any] = Factory(dict)


TENANT = "8f3c1a52-0000-4000-8000-000000000001"
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
LIKE = {
    "keycloak": Like(
        "/realms/shop/protocol/openid-connect/certs",
        {
            "aud": ["orders", "account"],
            "sub": UUID,
            "typ": "Bearer",
            "azp": "web",
            "realm_access": {"roles": ["offline_access", "orders-clerk", "default-roles-shop"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "scope": "openid email",
            "preferred_username": "ada",
        },
        (UUID, "orders-clerk"),
        {"typ": "ID"},
        {"alg": "RS256", "use": "sig", "x5c": ["AAAA"], "x5t": "AA"},
    ),
    "entra": Like(
        f"/{TENANT}/discovery/v2.0/keys",
        {
            "aud": "5d1f7b0a-0000-4000-8000-000000000002",
            "tid": TENANT,
            "oid": UUID,
            "sub": "pairwise",
            "ver": "2.0",
            "roles": ["Clerk"],
            "scp": "orders.read",
            "aio": "AAAA",
        },
        (UUID, "Clerk"),
        {"tid": UUID},
        {"use": "sig", "x5t": "signs", "x5c": ["AAAA"], "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
    ),
    "auth0": Like(
        "/.well-known/jwks.json",
        {
            "aud": ["https://orders.example.com", "https://acme.eu.auth0.com/userinfo"],
            "sub": "auth0|5f7c",
            "https://orders.example.com/roles": ["clerk"],
            "scope": "openid",
            "permissions": ["read:orders"],
        },
        ("auth0|5f7c", "clerk"),
        {"aud": "https://acme.eu.auth0.com/userinfo"},
        {"alg": "RS256", "use": "sig", "x5c": ["AAAA"], "x5t": "AA"},
        {"typ": "at+jwt"},
    ),
    "okta": Like(
        "/oauth2/default/v1/keys",
        {"aud": "api://default", "sub": "ada@example.com", "ver": 1, "cid": "0oa", "uid": "00u", "scp": ["a", "b"],
         "groups": ["Everyone", "Clerks"]},
        ("ada@example.com", "Everyone,Clerks"),
        {"aud": "api://other"},
        {"alg": "RS256", "use": "sig"},
    ),
    "cognito": Like(
        "/eu-central-1_Ab3dEf6hI/.well-known/jwks.json",
        {"sub": UUID, "token_use": "access", "client_id": "6k2w9example", "scope": "a", "cognito:groups": ["clerks"],
         "username": "ada"},
        (UUID, "clerks"),
        {"token_use": "id"},
        {"alg": "RS256", "use": "sig"},
    ),
    "google": Like(
        "/oauth2/v3/certs",
        {"aud": "1234567890-abc.apps.googleusercontent.com", "azp": "1234567890-abc.apps.googleusercontent.com",
         "sub": "1122", "hd": "example.com", "email": "ada@example.com", "email_verified": True},
        ("1122", ""),
        {"hd": "other.example"},
        {"alg": "RS256", "use": "sig"},
    ),
}  # fmt: skip


def configured() -> dict[str, dict[str, Any]]:
    """What the guide has in ``auth.jwt``, by the provider's name."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = [each for block in blocks for each in yaml.safe_load(block)["auth"].get("jwt", [])]
    return {each["name"]: each for each in found}


class Provider:
    """Answers for one of them, and for nothing else."""

    def __init__(self, settings: dict[str, Any], like: Like) -> None:
        self.service = Service(self._answer)
        self.like = like
        path = urlsplit(settings["issuer"]).path
        self.issuer = self.service.url + path
        self.settings = {**settings, "issuer": self.issuer}
        self._metadata = path.removesuffix("/") + "/.well-known/openid-configuration"

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "nbf": now, "exp": now + 600, **self.like.claims, **changes}
        return jwt.encode({"alg": "RS256", "kid": "signs", **self.like.header}, claims, KEY)

    def _answer(self, received: Received) -> None:
        keys = [
            {**OTHER.as_dict(private=False), "use": "enc", "alg": "RSA-OAEP"},
            {**KEY.as_dict(private=False), **self.like.members},
        ]
        documents = {
            self._metadata: {
                "issuer": self.issuer,
                "jwks_uri": self.service.url + self.like.keys,
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code"],
            },
            self.like.keys: {"keys": keys},
        }
        document = documents.get(received.target)
        received.conversation.answer(404 if document is None else 200, body=json.dumps(document).encode())


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Provider]]:
    with ExitStack() as stack:
        made = {name: Provider(settings, LIKE[name]) for name, settings in configured().items()}
        for each in made.values():
            stack.enter_context(closing(each.service))
        yield made


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, providers: dict[str, Provider]) -> Daemon:
    """All of them at once."""
    document = gateway(services={"main": module_service.url}, routes=[{"path": "/*", "service": "main"}])
    document["auth"] = {"jwt": [each.settings for each in providers.values()]}
    return in_front(document)


@pytest.mark.parametrize("name", LIKE)
def test_their_tokens(daemon: Daemon, service: Service, providers: dict[str, Provider], name: str) -> None:
    """The service gets the user and the roles; a token that is for another purpose is 401."""
    provider = providers[name]
    assert daemon.get("/a", f"Authorization: Bearer {provider.token()}").status == 200
    user, roles = LIKE[name].caller
    assert identity(service) == {"x-user-id": [user], "x-user-roles": [roles], "x-auth-provider": [name]}
    for changes in (LIKE[name].refused, {"iss": provider.issuer + "x"}):
        assert daemon.get("/a", f"Authorization: Bearer {provider.token(**changes)}").status == 401
