"""Checks across the keys of the gateway's own tokens."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from apigw.config import addresses
from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.rules import Reserved, Rules
from apigw.config.validate import shown
from apigw.policy.auth.jwt.rules import Trusted, apart, one_key, trusted
from apigw.policy.auth.secrets import SecretHash
from apigw.policy.oauth.schema import KEYS
from apigw.policy.oauth.signing import signing_key
from apigw.policy.oauth.token_request import check_client_id
from apigw.routing.hosts import Hosts


def token_endpoint(document: Document, files: Files) -> None:
    """There must be a key that can sign, and client ids must be unique."""
    path: Path = ("auth", "oauth")
    signing = document.get(*path, "signing")
    if signing:
        _signing_keys(document, (*path, "signing"), signing)
        _apart_from_others(document, path, signing)
        _reachable(document, path)
    seen: dict[str, Path] = {}
    for client, entry in document.entries(*path, "clients"):
        at = (*client, "id")
        if not isinstance(entry, dict) or "id" not in entry:
            continue
        first = seen.setdefault(entry["id"], at)
        if first != at:
            document.report(at, f"{shown(document, at, entry['id'])} is given twice, first at {document.place(first)}")


def _reachable(document: Document, path: Path) -> None:
    """Warns of a token endpoint that nobody finds: on hosts that routes name, there is none."""
    named: Hosts[bool] = Hosts()
    everywhere = False
    for route, _ in document.entries("routes"):
        hosts = [text for _, text in document.entries(*route, "hosts")]
        everywhere = everywhere or not hosts
        for host in hosts:
            named.set(addresses.route_host(host), True)
    issuer = document.get(*path, "issuer")
    if issuer is None or not len(named):
        return
    host = urlsplit(issuer).hostname or "" if "://" in issuer else ""
    at = (*path, "issuer")
    if host and named.find(host.encode("utf-8")):
        only = "the token endpoint is only on hosts that no route names"
        document.warn(at, f"{shown(document, at, issuer)} has a host that routes name: {only}")
    elif not everywhere and (not host or host == "localhost" or re.fullmatch(r"[0-9.]+|.*:.*", host)):
        document.warn(
            at, "every route has hosts: the token endpoint is only on hosts that no route names, and this names none"
        )


def _signing_keys(document: Document, path: Path, signing: dict[str, Any]) -> None:
    rsa = signing["algorithm"] == "RS256"
    secrets = ("secret", "secret_file")
    given = one_key(document, path, signing, ("private_key_file",) if rsa else secrets, needed=not rsa)
    if rsa and not given and document.is_sound((*path, "private_key_file")):
        sentence = (
            "has no private_key_file: the gateway makes a new key at each start, so a restart invalidates all tokens"
        )
        document.warn(path, sentence)
    ids = {signing["key_id"]: (*path, "key_id")}
    for entry, accepted in document.entries(*path, "accepted"):
        one_key(document, entry, accepted, ("public_key_file",) if rsa else secrets)
        at = (*entry, "key_id")
        first = ids.setdefault(accepted["key_id"], at)
        if first != at:
            key_id = shown(document, at, accepted["key_id"])
            document.report(at, f"{key_id} is given twice, first at {document.place(first)}")


def _apart_from_others(document: Document, path: Path, signing: dict[str, Any]) -> None:
    """No verifier of ``auth.jwt`` may be confused with the gateway's own tokens."""
    issuer = document.get(*path, "issuer")
    if issuer is not None:
        ids = frozenset(key["key_id"] for key in (signing, *signing.get("accepted", ())))
        own = Trusted(path, frozenset({signing["algorithm"]}), issuer, ids)
        for other in trusted(document):
            apart(document, own, other)


def issues_tokens(document: Document) -> bool:
    auth = document.tree.get("auth")
    return isinstance(auth, dict) and auth.get("oauth") is not None


def publishes_keys(document: Document) -> bool:
    """Whether it has public keys to publish: always, unless it is known to sign with HS256."""
    return issues_tokens(document) and document.get("auth", "oauth", "signing", "algorithm") != "HS256"


RULES = Rules(
    keys=KEYS,
    forms={"client id": check_client_id, "hash": SecretHash.parse},
    called={"client id": "printable ASCII without colon", "hash": "`scrypt$…` or `sha256$…`"},
    contents={"signing key": signing_key},
    private=frozenset({"signing key"}),
    checks=(token_endpoint,),
    reserved=(
        Reserved(("/oauth/token", "/.well-known/oauth-authorization-server"), "with `auth.oauth`", issues_tokens),
        Reserved(("/.well-known/jwks.json",), "where that signs with RS256", publishes_keys),
    ),
)
