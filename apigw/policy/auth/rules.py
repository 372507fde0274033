"""Checks of authentication in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from attrs import frozen

from apigw.config.check_files import warn_exposed
from apigw.config.files import Files, text
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.paths import paths_of
from apigw.config.problem import Problem
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.policy.auth import keys
from apigw.policy.auth.model import AuthOfGateway, AuthOfRoute, auth_of, default_auth, demanded
from apigw.policy.auth.names import check_claim, check_role, check_scope
from apigw.policy.auth.schema import KEYS

_SOURCES = {
    "RS256": ("public_key_file", "jwks_file", "jwks_url"),
    "HS256": ("secret", "secret_file", "jwks_file"),
}
_ALL_SOURCES = ("private_key_file", "public_key_file", "secret", "secret_file", "jwks_file", "jwks_url")
_MAX_PAIRED = 500
_MAX_NAMED = 10


def demands(document: Document, files: Files) -> None:
    """Reports authentication without an ``auth`` section, and roles and scopes without authentication."""
    has_auth = document.tree.get("auth") is not None
    default = default_auth(document.get("gateway", "auth_default"), has_auth)
    sure = has_auth or document.whole
    unprovable = "but there is no auth section that could verify a token"
    if default != "none" and not has_auth and sure:
        document.report(("gateway", "auth_default"), f"is {default}, {unprovable}")
    routes = [(path, route) for path, route in document.entries("routes") if isinstance(route, dict)]
    opened: list[Path] = []
    for path, route in routes:
        auth = route.get("auth") or default
        if auth == "none":
            opened.append(path)
        if route.get("auth") in ("required", "optional") and not has_auth and sure:
            document.report((*path, "auth"), f"is {auth}, {unprovable}")
        for key in ("roles", "scopes"):
            judged = document.is_sound((*path, "auth")) and (sure or route.get("auth"))
            if route.get(key) and auth == "none" and judged:
                sentence = "needs authentication, but the route's auth is none"
                document.report((*path, key), sentence, document.key((*path, key)))
    if opened:
        named = ", ".join(_first_path(document, path) for path in opened[:_MAX_NAMED])
        more = f" and {len(opened) - _MAX_NAMED} more" if len(opened) > _MAX_NAMED else ""
        sentence = f"{len(opened)} of {len(routes)} routes need no authentication: {named}{more}"
        document.warn(("routes",), sentence, document.place((*opened[0], "path")))


def _first_path(document: Document, route: Path) -> str:
    return next((text for _, text in paths_of(document, route)), "")


def verifiers(document: Document, files: Files) -> None:
    """Reports verifiers without exactly one key of the right kind, and verifiers that accept the same tokens."""
    auth = document.get("auth")
    if auth is not None and not any(value not in (None, []) for value in auth.values()):
        known = " or ".join(sorted(document.schema["auth"]["schema"]))
        document.report(("auth",), f"is empty: it needs {known}", document.key(("auth",)))
    names: dict[str, Path] = {}
    for path, verifier in document.entries("auth", "jwt"):
        if isinstance(verifier, dict) and "algorithm" in verifier:
            _key_source(document, files, path, verifier)
        if isinstance(verifier, dict) and "name" in verifier:
            at = (*path, "name")
            first = names.setdefault(verifier["name"], at)
            if first != at:
                owner = f"the verifier at {document.place(first)}"
                document.report(at, f"{shown(document, at, verifier['name'])} is already the name of {owner}")
        if document.is_sound(path) and not verifier.get("issuer") and not verifier.get("audience"):
            sentence = "accepts every token that its key has signed: give it an issuer or an audience"
            document.warn(path, sentence)
    for one, other in combinations(list(trusted(document))[:_MAX_PAIRED], 2):
        apart(document, one, other)


@frozen
class Trusted:
    """Tokens that are believed, by what tells them from others: ``path`` says so in the configuration."""

    path: Path
    algorithm: str
    issuer: str | None
    key_ids: frozenset[str | None]


def trusted(document: Document) -> Iterator[Trusted]:
    """Those of each verifier that is sound."""
    for path, verifier in document.entries("auth", "jwt"):
        if document.is_sound(path):
            ids = frozenset(filter(None, (verifier.get("key_id"),)))
            yield Trusted(path, verifier["algorithm"], verifier.get("issuer"), ids)


def apart(document: Document, one: Trusted, other: Trusted) -> None:
    """Reports ``other`` where a token could be meant for both."""
    if one.algorithm == other.algorithm and not keys.apart(one.issuer, one.key_ids, other.issuer, other.key_ids):
        sentence = f"could accept the same tokens as the one at {document.place(one.path)}"
        document.report(other.path, f"{sentence}: give each its own issuer")


def _key_source(document: Document, files: Files, path: Path, verifier: dict[str, Any]) -> None:
    given = one_key(document, path, verifier, _SOURCES[verifier["algorithm"]])
    if verifier.get("key_id") and given.startswith("jwks"):
        sentence = "has no effect with a key set: each of its keys has its own kid"
        document.report((*path, "key_id"), sentence, document.key((*path, "key_id")))
    if given == "jwks_file":
        at, name = (*path, given), verifier[given]
        if verifier["algorithm"] == "HS256":
            warn_exposed(document, files, at, name, private=True)
        try:
            keys.key_set(files.data(name), verifier["algorithm"])
        except ValueError as error:
            document.report(at, f"{shown(document, at, name)} {error}")
    if (verifier.get("jwks_url") or "").startswith("http://"):
        document.warn((*path, "jwks_url"), "fetches keys without TLS: anyone on the network path can replace them")


def one_key(
    document: Document, path: Path, keys_of: dict[str, Any], fitting: tuple[str, ...], needed: bool = True
) -> str:
    """Report if there is not exactly one key, or it is of the wrong kind. Returns the name of the first, or ""."""
    given = [key for key in _ALL_SOURCES if keys_of.get(key) is not None]
    if needed and not given and all(document.is_sound((*path, key)) for key in _ALL_SOURCES):
        document.report(path, f"has no key: it needs {' or '.join(fitting)}", document.key(path))
    for key in given[1:]:
        document.report((*path, key), f"is given beside {given[0]}: give only one of them", document.key((*path, key)))
    if given and given[0] not in fitting:
        sentence = f"does not fit the algorithm, which needs {' or '.join(fitting)}"
        document.report((*path, given[0]), sentence, document.key((*path, given[0])))
    _secret(document, (*path, "secret"), keys_of.get("secret"))
    return given[0] if given else ""


def _secret(document: Document, path: Path, secret: str | None) -> None:
    if secret is not None:
        try:
            keys.secret_key(secret.encode(), None)
        except ValueError as error:
            document.report(path, str(error))


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    yield "auth", demanded(config, route)
    of_route = route.of(AuthOfRoute)
    if of_route.roles:
        yield "roles", f"any of {', '.join(of_route.roles)}"
    if of_route.scopes:
        yield "scopes", f"all of {', '.join(of_route.scopes)}"


def refuse(old: Config, new: Config) -> Iterator[Problem]:
    """Refuses a reload that removes ``auth``, because that is probably a missing file."""
    if auth_of(old) is not None and auth_of(new) is None and new.gateway.of(AuthOfGateway).auth_default != "none":
        yield Problem(
            "is missing, and a reload removes authentication only with `gateway.auth_default: none`", ("auth",)
        )


def _secret_file(data: bytes) -> object:
    return keys.secret_key(text(data), None)


def _public_key(data: bytes) -> object:
    return keys.public_key(data, None)


RULES = Rules(
    keys=KEYS,
    forms={"role": check_role, "scope": check_scope, "claim": check_claim},
    called={
        "role": "text without commas",
        "scope": "scope (RFC 6749 §3.3)",
        "claim": "claim, with dots into nested ones",
    },
    contents={"public key": _public_key, "secret": _secret_file},
    private=frozenset({"secret"}),
    checks=(verifiers, demands),
    refuse=(refuse,),
    told=(told,),
)
