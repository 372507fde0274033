"""Checks of verifiers of JWTs in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from attrs import frozen

from apigw.config.addresses import web_url
from apigw.config.check_files import warn_exposed
from apigw.config.files import Files, text
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.nearest import meant
from apigw.config.validate import shown
from apigw.policy.auth.jwt import keys
from apigw.policy.auth.jwt.algorithms import ALL, PUBLIC, SECRET
from apigw.policy.auth.jwt.claims import is_role
from apigw.policy.auth.jwt.public_keys import algorithms_of, read_pem
from apigw.policy.auth.names import check_claim

_OF_PUBLIC = ("public_key_file", "jwks_file", "jwks_url", "openid")
_OF_SECRET = ("secret", "secret_file", "jwks_file")
_ALL_SOURCES = ("private_key_file", "public_key_file", "secret", "secret_file", "jwks_file", "jwks_url", "openid")
_SETS = ("jwks_file", "jwks_url", "openid")
_MAX_PAIRED = 500


def verifiers(document: Document, files: Files) -> None:
    """Reports verifiers without exactly one key of the right kind, and verifiers that accept the same tokens."""
    for path, verifier in document.entries("auth", "jwt"):
        if isinstance(verifier, dict) and document.is_sound((*path, "algorithm")):
            _key_source(document, files, path, verifier)
        for at, _ in document.entries(*path, "claims"):
            claim_name(document, at)
        if document.is_sound(path) and not verifier.get("issuer") and not verifier.get("audience"):
            sentence = "accepts every token that its key has signed: give it an issuer or an audience"
            document.warn(path, sentence)
    for one, other in combinations(list(trusted(document))[:_MAX_PAIRED], 2):
        apart(document, one, other)


def claim_name(document: Document, path: Path) -> None:
    """Reports a demanded claim whose name none can have."""
    try:
        check_claim(str(path[-1]))
    except ValueError as error:
        document.report(path, f"{shown(document, (), path[-1])} {error}", document.key(path))


@frozen
class Trusted:
    """Tokens that are believed, by what tells them from others: ``path`` says so in the configuration."""

    path: Path
    algorithms: frozenset[str]
    issuer: str | None
    key_ids: frozenset[str | None]


def trusted(document: Document) -> Iterator[Trusted]:
    """Those of each verifier that is sound."""
    for path, verifier in document.entries("auth", "jwt"):
        if document.is_sound(path):
            ids = frozenset(filter(None, (verifier.get("key_id"),)))
            yield Trusted(path, frozenset(_algorithms(verifier) or PUBLIC), verifier.get("issuer"), ids)


def apart(document: Document, one: Trusted, other: Trusted) -> None:
    """Reports ``other`` where a token could be meant for both."""
    common = one.algorithms & other.algorithms
    if common and not keys.apart(one.issuer, one.key_ids, other.issuer, other.key_ids):
        sentence = f"could accept the same tokens as the one at {document.place(one.path)}"
        document.report(other.path, f"{sentence}: give each its own issuer")


def _algorithms(verifier: dict[str, Any]) -> Sequence[str]:
    given = verifier.get("algorithm") or ()
    return (given,) if isinstance(given, str) else given


def _key_source(document: Document, files: Files, path: Path, verifier: dict[str, Any]) -> None:
    algorithms = _algorithms(verifier)
    if SECRET in algorithms and len(algorithms) > 1:
        sentence = "has HS256 beside others: a secret and public keys need an entry each"
        document.report((*path, "algorithm"), sentence)
        return
    secret = not algorithms and bool(verifier.get("secret") or verifier.get("secret_file"))
    fitting = _OF_SECRET if secret or SECRET in algorithms else _OF_PUBLIC
    given = one_key(document, path, verifier, fitting)
    if not algorithms and given and given not in _SETS:
        why = (
            "for a secret, write algorithm: HS256" if secret else "only a key set says by itself what its keys are for"
        )
        document.report(path, f"has no algorithm: {why}")
    if verifier.get("key_id") and given in _SETS:
        sentence = "has no effect with a key set: each of its keys has its own kid"
        document.report((*path, "key_id"), sentence, document.key((*path, "key_id")))
    at = (*path, given)
    if given == "jwks_file":
        name = verifier[given]
        if SECRET in algorithms:
            warn_exposed(document, files, at, name, private=True)
        try:
            keys.key_set(files.data(name), algorithms or PUBLIC)
        except ValueError as error:
            document.report(at, f"{shown(document, at, name)} {error}")
    if given == "public_key_file" and document.is_sound(at) and algorithms and given in fitting:
        _public_key(document, files, at, verifier[given], algorithms)
    if given == "openid":
        _issuer(document, (*path, "issuer"), verifier.get("issuer"))
    if (verifier.get("jwks_url") or "").startswith("http://"):
        document.warn((*path, "jwks_url"), "fetches keys without TLS: anyone on the network path can replace them")


def _public_key(document: Document, files: Files, path: Path, name: str, algorithms: Sequence[str]) -> None:
    try:
        key = read_pem(files.data(name))
        algorithms_of(key)
    except ValueError:  # the check of the file's content has said so
        return
    try:
        keys.public_key(key, None, algorithms)
    except ValueError as error:
        document.report(path, f"{shown(document, path, name)} {error}")


def _issuer(document: Document, path: Path, issuer: str | None) -> None:
    if issuer is None:
        if document.is_sound(path):
            document.report(path[:-1], "has openid, which needs an issuer: the URL of the provider")
        return
    try:
        web_url(issuer)
    except ValueError as error:
        document.report(path, f"{shown(document, path, issuer)} {error}, as the metadata is fetched there")
        return
    if "?" in issuer or "#" in issuer:
        document.report(path, f"{shown(document, path, issuer)} has a query or a fragment, which no issuer has")
    if issuer.startswith("http://"):
        document.warn(path, "fetches keys without TLS: anyone on the network path can replace them")


def one_key(
    document: Document, path: Path, keys_of: dict[str, Any], fitting: tuple[str, ...], needed: bool = True
) -> str:
    """Report if there is not exactly one key, or it is of the wrong kind. Returns the name of the first, or ""."""
    given = [key for key in _ALL_SOURCES if keys_of.get(key) not in (None, False)]
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


def check_algorithm(name: str) -> None:
    if name not in ALL:
        raise ValueError(f"is not one of {', '.join(ALL)}{meant(name, ALL)}")


def check_role_pattern(pattern: str) -> None:
    """A role in which ``*`` stands for any characters."""
    if not is_role(pattern) or pattern.count("*") > 5:
        raise ValueError("is not a role, or part of one with at most five *")


def secret_file(data: bytes) -> object:
    return keys.secret_key(text(data), None)


def public_key_file(data: bytes) -> object:
    return algorithms_of(read_pem(data))
