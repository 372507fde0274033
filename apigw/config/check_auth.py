"""Whether what routes demand can be proved, and whether each token can be believed by one verifier only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from attrs import frozen

from apigw.config import keys
from apigw.config.keys import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.validate import shown

_SOURCES = {
    "RS256": ("public_key_file", "jwks_file", "jwks_url"),
    "HS256": ("secret", "secret_file", "jwks_file"),
}
_ALL_SOURCES = ("private_key_file", "public_key_file", "secret", "secret_file", "jwks_file", "jwks_url")
OWN_VERIFIER = "oauth"
_MAX_PAIRED = 500


def demands(document: Document) -> None:
    """What routes demand of their callers can be proved; a route that asks nobody who calls demands nothing of them."""
    has_auth = document.tree.get("auth") is not None
    default = document.get("gateway", "auth_default") or ("required" if has_auth else "none")
    sure = has_auth or document.whole
    unprovable = "but there is no auth section that could verify a token"
    if default != "none" and not has_auth and sure:
        document.report(("gateway", "auth_default"), f"is {default}, {unprovable}")
    routes = [(path, route) for path, route in document.entries("routes") if isinstance(route, dict)]
    opened = 0
    for path, route in routes:
        auth = route.get("auth") or default
        opened += auth == "none"
        if route.get("auth") in ("required", "optional") and not has_auth and sure:
            document.report((*path, "auth"), f"is {auth}, {unprovable}")
        for key in ("roles", "scopes"):
            judged = document.is_sound((*path, "auth")) and (sure or route.get("auth"))
            if route.get(key) and auth == "none" and judged:
                sentence = "is demanded of callers whom nobody asks who they are: the route's auth is none"
                document.report((*path, key), sentence, document.key((*path, key)))
    if opened:
        document.warn(("routes",), f"{opened} of {len(routes)} routes are open: they ask nobody who calls")


def verifiers(document: Document) -> None:
    """One key each, of the kind that its algorithm needs, and no two verifiers for the same token."""
    auth = document.get("auth")
    if auth is not None and not auth.get("jwt") and auth.get("oauth") is None:
        document.report(("auth",), "is empty: it needs jwt or oauth", document.key(("auth",)))
    names: dict[str, Path] = {OWN_VERIFIER: ()} if document.get("auth", "oauth") else {}
    for path, verifier in document.entries("auth", "jwt"):
        if isinstance(verifier, dict) and "algorithm" in verifier:
            _key_source(document, path, verifier)
        if isinstance(verifier, dict) and "name" in verifier:
            at = (*path, "name")
            first = names.setdefault(verifier["name"], at)
            if first != at:
                owner = f"the one at {document.place(first)}" if first else "the gateway's own tokens"
                document.report(at, f"{shown(document, at, verifier['name'])} is the name of {owner} already")
    for one, other in combinations(list(_trusted(document))[:_MAX_PAIRED], 2):
        if one.may_accept_what(other):
            sentence = f"could accept the same tokens as the one at {document.place(one.path)}"
            document.report(other.path, f"{sentence}: give both an issuer, and different ones")


@frozen
class _Trusted:
    path: Path
    algorithm: str
    issuer: str | None
    key_ids: frozenset[str]

    def may_accept_what(self, other: _Trusted) -> bool:
        if self.algorithm != other.algorithm:
            return False
        if self.key_ids and other.key_ids and self.key_ids.isdisjoint(other.key_ids):
            return False
        return not self.issuer or not other.issuer or self.issuer == other.issuer


def _trusted(document: Document) -> Iterator[_Trusted]:
    oauth = document.get("auth", "oauth")
    if oauth:
        signing = oauth["signing"]
        ids = frozenset(key["key_id"] for key in (signing, *signing.get("accepted", ())))
        yield _Trusted(("auth", "oauth"), signing["algorithm"], oauth["issuer"], ids)
    for path, verifier in document.entries("auth", "jwt"):
        if document.is_sound(path):
            ids = frozenset(filter(None, (verifier.get("key_id"),)))
            yield _Trusted(path, verifier["algorithm"], verifier.get("issuer"), ids)


def _key_source(document: Document, path: Path, verifier: dict[str, Any]) -> None:
    given = _one_key(document, path, verifier, _SOURCES[verifier["algorithm"]])
    if verifier.get("key_id") and given.startswith("jwks"):
        sentence = "means nothing with a key set, whose keys have their own"
        document.report((*path, "key_id"), sentence, document.key((*path, "key_id")))
    if (verifier.get("jwks_url") or "").startswith("http://"):
        document.warn((*path, "jwks_url"), "fetches keys without TLS: whoever is on the way can put in their own")


def _one_key(
    document: Document, path: Path, keys_of: dict[str, Any], fitting: tuple[str, ...], needed: bool = True
) -> str:
    """Reports any number of keys but one, and one of the wrong kind; the name of the first that is given, or none."""
    given = [key for key in _ALL_SOURCES if keys_of.get(key) is not None]
    if needed and not given and all(document.is_sound((*path, key)) for key in _ALL_SOURCES):
        document.report(path, f"has no key: it needs {' or '.join(fitting)}", document.key(path))
    for key in given[1:]:
        document.report((*path, key), f"is given beside {given[0]}: there is one key", document.key((*path, key)))
    if given and given[0] not in fitting:
        sentence = f"does not fit the algorithm, which needs {' or '.join(fitting)}"
        document.report((*path, given[0]), sentence, document.key((*path, given[0])))
    _secret(document, (*path, "secret"), keys_of.get("secret"))
    return given[0] if given else ""


def token_endpoint(document: Document, files: Files) -> None:
    """A key that can sign, and clients that can be told apart."""
    path: Path = ("auth", "oauth")
    signing = document.get(*path, "signing")
    if signing:
        _signing_keys(document, files, (*path, "signing"), signing)
    seen: dict[str, Path] = {}
    for client, entry in document.entries(*path, "clients"):
        at = (*client, "id")
        if not isinstance(entry, dict) or "id" not in entry:
            continue
        first = seen.setdefault(entry["id"], at)
        if first != at:
            document.report(at, f"{shown(document, at, entry['id'])} is given twice, first at {document.place(first)}")


def _signing_keys(document: Document, files: Files, path: Path, signing: dict[str, Any]) -> None:
    rsa = signing["algorithm"] == "RS256"
    secrets = ("secret", "secret_file")
    given = _one_key(document, path, signing, ("private_key_file",) if rsa else secrets, needed=not rsa)
    if rsa and not given and document.is_sound((*path, "private_key_file")):
        sentence = "has no private_key_file: a key is made at each start, and tokens end with the process"
        document.warn(path, sentence)
    if rsa and given == "private_key_file":
        try:
            keys.rsa_private_key(files.data(signing["private_key_file"]))
        except ValueError as error:
            at = (*path, "private_key_file")
            document.report(at, f"{shown(document, at, signing['private_key_file'])} {error}")
    ids = {signing["key_id"]: (*path, "key_id")}
    for entry, accepted in document.entries(*path, "accepted"):
        _one_key(document, entry, accepted, ("public_key_file",) if rsa else secrets)
        at = (*entry, "key_id")
        first = ids.setdefault(accepted["key_id"], at)
        if first != at:
            key_id = shown(document, at, accepted["key_id"])
            document.report(at, f"{key_id} is given twice, first at {document.place(first)}")


def _secret(document: Document, path: Path, secret: str | None) -> None:
    if secret is not None:
        try:
            keys.hmac_secret(secret.encode())
        except ValueError as error:
            document.report(path, str(error))
