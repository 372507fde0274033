"""API keys, passwords and tokens in front of one service."""

from __future__ import annotations

from pathlib import Path

from support.daemon import gateway
from support.guarded import REALM, basic, identity
from support.services import Service

from apigw.policy.auth.api_keys import editing
from apigw.policy.auth.api_keys.records import Record, digest_of, new_key
from apigw.policy.auth.secrets import hash_secret

from .conftest import Start

PASSWORD = "correct+horse/battery=staple"
KEY = 'Key realm="apigw", header="X-API-Key"'
BASIC = 'Basic realm="apigw", charset="UTF-8"'


def test_every_kind_says_who_calls_and_reaches_no_service(start: Start, service: Service, tmp_path: Path) -> None:
    """A 401 names all kinds. A reload ends a key that was revoked, and keeps a password that was right."""
    keys, passwords, key = tmp_path / "partners.keys", tmp_path / "ops.htpasswd", new_key()
    editing.add(str(keys), Record(digest_of(key.encode()), "acme", ("partner",)))
    passwords.write_text(f"ada:{hash_secret(PASSWORD)}:admin\n")
    document = gateway(
        services={"main": service.url},
        routes=[
            {"path": "/any", "service": "main", "providers": ["ops", "partners", "id"]},
            {"path": "/keys", "service": "main", "providers": ["partners"], "roles": ["partner"]},
            {"path": "/open", "service": "main", "auth": "none"},
        ],
    )
    document["auth"] = {
        "jwt": [{"name": "id", "algorithm": "HS256", "secret": "0123456789abcdef" * 2, "issuer": "https://id"}],
        "api_keys": [{"name": "partners", "file": str(keys)}],
        "basic": [{"name": "ops", "file": str(passwords)}],
    }
    daemon = start(document)
    good = f"X-API-Key: {key}"
    answer = daemon.get("/any")
    assert (answer.status, answer.all("www-authenticate")) == (401, [REALM, BASIC, KEY])
    for path in ("/any", "/keys"):
        assert daemon.get(path, good).status == 200
        assert identity(service) == {
            "x-user-id": ["acme"], "x-user-roles": ["partner"], "x-auth-provider": ["partners"]
        }  # fmt: skip
        assert service.last.get("x-api-key") is None
    assert daemon.get("/open", good).status == 200
    assert service.last.get("x-api-key") is None
    for _ in range(2):
        assert daemon.get("/any", basic("ada", PASSWORD)).status == 200
        assert identity(service) == {"x-user-id": ["ada"], "x-user-roles": ["admin"], "x-auth-provider": ["ops"]}
        assert service.last.get("authorization") is None
    answer = daemon.get("/any", basic("ada", "wrong"))
    assert (answer.status, answer.all("www-authenticate")) == (401, [BASIC, REALM, KEY])
    assert [daemon.get("/keys", basic("ada", PASSWORD)).status, daemon.get(f"/any?X-API-Key={key}").status] == [401] * 2
    assert editing.remove(str(keys), "acme") == 1
    assert daemon.get("/any", good).status == 200
    assert daemon.reload()
    answer = daemon.get("/any", good)
    assert (answer.status, answer.all("www-authenticate")) == (401, [KEY, REALM, BASIC])
    assert daemon.get("/any", basic("ada", PASSWORD)).status == 200
    assert key not in daemon.log
    assert PASSWORD not in daemon.log
