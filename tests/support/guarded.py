"""A gateway that asks who calls: two verifiers, the token endpoint, and what it must never write anywhere."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

from apigw.policy.auth.secrets import hash_generated, hash_secret, new_secret
from support.client import Answer, Client
from support.daemon import Daemon, Document, gateway
from support.services import Service
from support.tokens import Provider, bearer
from support.waiting import eventually

HS_SECRET = b"0123456789abcdef0123456789abcdef"
HS_ISSUER = "https://legacy.example"
GATEWAY = "https://gateway.example"
SECRET, CHOSEN = new_secret(), "correct+horse/battery=staple"
REALM = 'Bearer realm="apigw"'
FORM = "Content-Type: application/x-www-form-urlencoded"

ROUTES = [
    {"path": "/api/*", "service": "main"},
    {"path": "/open/*", "service": "main", "auth": "none"},
    {"path": "/optional/*", "service": "main", "auth": "optional"},
    {"path": "/admin/*", "service": "main", "roles": ["admin", "root"]},
    {"path": "/scoped/*", "service": "main", "scopes": ["orders.read", "orders.write"]},
    {"path": "/partner/*", "service": "main", "roles": ["partner"], "scopes": ["orders.read"]},
    {"path": "/hidden/*", "service": "main", "forward_token": False},
]


def basic(id: str, secret: str) -> str:
    """The header line."""
    return "Authorization: Basic " + b64encode(f"{id}:{secret}".encode()).decode()


ACME = basic("acme", SECRET)


def with_auth(directory: Path, provider: Provider, service: Service, **settings: Any) -> Document:
    """Two verifiers and the token endpoint; the keys are written to ``directory``."""
    (directory / "main.pem").write_bytes(provider.public_pem)
    own = Provider(GATEWAY)
    (directory / "token.key").write_bytes(own.private_pem)
    clients = [
        {"id": "acme", "secret_hash": [hash_generated(SECRET)], "roles": ["partner"], "scopes": ["orders.read", "a.b"]},
        {"id": "choosy", "secret_hash": [hash_secret(CHOSEN)]},
    ]
    document = gateway(services={"main": service.url}, routes=ROUTES, **settings)
    document["auth"] = {
        "jwt": [
            {
                "name": "main",
                "algorithm": "RS256",
                "public_key_file": str(directory / "main.pem"),
                "key_id": "main",
                "issuer": provider.issuer,
                "audience": ["orders"],
                "roles_claim": "realm_access.roles",
            },
            {"name": "legacy", "algorithm": "HS256", "secret": HS_SECRET.decode(), "issuer": HS_ISSUER},
        ],
        "oauth": {
            "signing": {"algorithm": "RS256", "key_id": "k1", "private_key_file": str(directory / "token.key")},
            "issuer": GATEWAY,
            "rate_limit": {"limit": 10_000, "window": "60s"},
            "refresh_tokens": True,
            "clients": clients,
        },
    }
    return document


def identity(service: Service) -> dict[str, list[str]]:
    names = ("x-user-id", "x-user-roles", "x-auth-provider")
    return {name: service.last.all(name) for name in names if service.last.all(name)}


def check_silent(answer: Answer, *secrets: str) -> None:
    text = answer.body.decode() + str(answer.headers)
    for secret in secrets:
        for part in secret.split("."):
            assert len(part) < 20 or part not in text


class Guarded:
    """One such gateway in front of ``service``, an identity provider that it trusts, and a stranger with its name."""

    def __init__(self, directory: Path, service: Service) -> None:
        self.provider = Provider("https://id.example")
        self.stranger = Provider("https://id.example")
        self.service = service
        self.access_log = directory / "access.log"
        access_log = {"file": str(self.access_log), "format": "json"}
        self.document = with_auth(directory, self.provider, service, access_log=access_log)
        self.daemon: Daemon
        self._secrets = {SECRET, CHOSEN, HS_SECRET.decode()}

    def told(self, secret: str) -> str:
        """Remember what is secret: a token is, and each of its parts."""
        self._secrets.update(part for part in (secret, *secret.split(".")) if len(part) >= 20)
        return secret

    def get(self, target: str, token: str | None = None, *headers: str) -> Answer:
        """GET, with a token. A refusal repeats nothing of it, and does not reach the service."""
        lines = headers if token is None else (bearer(self.told(token)), *headers)
        answer = self.daemon.get(target, *lines)
        if answer.status >= 400:
            assert self.service.requests == []
            check_silent(answer, token or "")
        return answer

    def has_kept_silent(self) -> None:
        """Nothing that was written, nor the metrics, holds anything secret."""
        self.daemon.get("/open/the-last")
        eventually(lambda: "/open/the-last" in self.access_log.read_text())
        with Client(self.daemon.admin) as client:
            metrics = client.get("/metrics").body.decode()
        places = {"log": self.daemon.log, "access log": self.access_log.read_text(), "metrics": metrics}
        assert "gateway_requests_total{" in metrics
        for secret in self._secrets:
            for spelled in {secret, quote(secret, safe=""), b64encode(secret.encode()).decode()}:
                for place, text in places.items():
                    assert spelled not in text, f"in the {place}"
