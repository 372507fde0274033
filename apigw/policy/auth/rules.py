"""Checks of authentication in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.nearest import hint
from apigw.config.paths import paths_of
from apigw.config.problem import Problem
from apigw.config.rules import Less, Rules
from apigw.config.validate import shown
from apigw.policy.auth.api_keys.records import check_file
from apigw.policy.auth.api_keys.rules import check_header
from apigw.policy.auth.basic.users import parse as passwords
from apigw.policy.auth.introspection.rules import client_secret, introspection
from apigw.policy.auth.jwt.own import PROVIDER
from apigw.policy.auth.jwt.rules import (
    check_algorithm,
    check_role_pattern,
    claim_name,
    public_key_file,
    secret_file,
    verifiers,
)
from apigw.policy.auth.model import AuthOfGateway, AuthOfRoute, auth_of, default_auth, demanded
from apigw.policy.auth.mtls.rules import certificates
from apigw.policy.auth.names import check_claim, check_role, check_scope
from apigw.policy.auth.schema import KEYS

KINDS = ("jwt", "api_keys", "basic", "mtls", "introspection")
"""The kinds of providers: each a list of maps with a ``name``."""
_MAX_NAMED = 10


def section(document: Document, files: Files) -> None:
    """Reports a section without a provider, and names of providers that are given twice, of whatever kind."""
    auth = document.get("auth")
    if auth is not None and not any(auth.get(key) not in (None, []) for key in (*KINDS, "oauth")):
        known = " or ".join(sorted((*KINDS, "oauth")))
        document.report(("auth",), f"is empty: it needs {known}", document.key(("auth",)))
    names: dict[str, Path] = {}
    for path, name in _named(document):
        if name == PROVIDER and auth is not None and auth.get("oauth"):
            document.report(path, f"{shown(document, path, name)} is already the name of the gateway's own tokens")
        first = names.setdefault(name, path)
        if first != path:
            owner = f"the provider at {document.place(first)}"
            document.report(path, f"{shown(document, path, name)} is already the name of {owner}")


def _named(document: Document) -> Iterator[tuple[Path, str]]:
    """The names of all providers but the gateway itself, and where they stand."""
    for kind in KINDS:
        for path, provider in document.entries("auth", kind):
            if isinstance(provider, dict) and "name" in provider:
                yield (*path, "name"), provider["name"]


def provider_names(document: Document) -> list[str]:
    """The names of all providers, the gateway's own tokens included."""
    auth = document.tree.get("auth")
    own = [PROVIDER] if isinstance(auth, dict) and auth.get("oauth") else []
    return [*(name for _, name in _named(document)), *own]


def demands(document: Document, files: Files) -> None:
    """Reports authentication without an ``auth`` section, and demands without authentication."""
    has_auth = document.tree.get("auth") is not None
    default = default_auth(document.get("gateway", "auth_default"), has_auth)
    shared: Path = ("defaults", "route", "auth")
    if document.get("gateway", "auth_default") is not None and document.get(*shared) is not None:
        beside = document.key(("gateway", "auth_default"))
        document.report(
            shared, f"says the same as gateway.auth_default at {beside}: leave one out", document.key(shared)
        )
    sure = has_auth or document.whole
    unprovable = "but there is no auth section that could verify a token"
    if default != "none" and not has_auth and sure:
        document.report(("gateway", "auth_default"), f"is {default}, {unprovable}")
    routes = [(path, route) for path, route in document.entries("routes") if isinstance(route, dict)]
    opened: list[Path] = []
    for path, route in routes:
        auth = route.get("auth") or default
        if auth == "none" and not route.get("check_with"):  # another program decides who may call
            opened.append(path)
        if route.get("auth") in ("required", "optional") and not has_auth and sure:
            document.report((*path, "auth"), f"is {auth}, {unprovable}")
        for key in ("providers", "roles", "scopes", "claims"):
            judged = document.is_sound((*path, "auth")) and (sure or route.get("auth"))
            if route.get(key) and auth == "none" and judged:
                is_written = route.get("auth") == "none" or has_auth or not sure
                why = "the route's auth is none" if is_written else "there is no auth section that could verify a token"
                sentence = f"needs authentication, but {why}"
                document.report((*path, key), sentence, document.key((*path, key)))
        for at, _ in document.entries(*path, "claims"):
            claim_name(document, at)
    if opened:
        need = "needs" if len(opened) == 1 else "need"
        sentence = f"{len(opened)} of {len(routes)} routes {need} no authentication: {_listed(document, opened)}"
        document.warn(("routes",), sentence, document.place((*opened[0], "path")))


def providers(document: Document, files: Files) -> None:
    """Reports names of providers that do not exist. Warns of routes that take all, where there are several."""
    known = provider_names(document)
    sound = document.whole and document.get("auth") is not None
    default = default_auth(document.get("gateway", "auth_default"), bool(known))
    unnamed: list[Path] = []
    for path, route in document.entries("routes"):
        if not isinstance(route, dict):
            continue
        if route.get("providers") is None and (route.get("auth") or default) != "none":
            unnamed.append(path)
        if sound and (route.get("auth") or default) != "none":
            _provable(document, path, route, route.get("providers") or known)
            _one_server(document, path, route.get("providers") or known)
        for at, name in document.entries(*path, "providers"):
            if sound and name not in known:
                near = hint(str(name), known)
                document.report(at, f"{shown(document, at, name)} is not the name of a provider{near}")
    if len(known) > 1 and unnamed:
        many = f"{len(unnamed)} {'routes take' if len(unnamed) > 1 else 'route takes'}"
        sentence = f"{many} the credentials of every provider ({', '.join(known)}): {_listed(document, unnamed)}"
        document.warn(
            ("routes",), f"{sentence}; `providers` names those that are meant", document.place((*unnamed[0], "path"))
        )


_LACK = {"claims": ("api_keys", "basic", "mtls"), "scopes": ("basic", "mtls")}
"""The kinds of providers whose callers have none."""


def _provable(document: Document, path: Path, route: dict[str, Any], names: list[str]) -> None:
    """Reports demands that no caller of the route can meet."""
    found = {name: at[:-1] for at, name in _named(document)}
    if any(name != PROVIDER and name not in found for name in names):
        return
    own = {PROVIDER} if PROVIDER not in found else set[str]()
    for key in ("claims", "scopes", "roles"):
        if route.get(key) and not own & {*names} and all(_lacks(document, found[name], key) for name in names):
            sentence = f"cannot be met: callers of {', '.join(names)} have no {key}"
            document.report((*path, key), sentence, document.key((*path, key)))


def _one_server(document: Document, path: Path, names: list[str]) -> None:
    """Reports routes on which two servers could be asked about the same token."""
    asked = [name for at, name in _named(document) if at[1] == "introspection" and name in names]
    if len(asked) > 1:
        sentence = f"takes opaque tokens of several providers ({', '.join(asked)}): `providers` must name one of them"
        document.report(path, sentence)


def _lacks(document: Document, provider: Path, key: str) -> bool:
    """Whether no caller of a provider has what a route demands."""
    kind = provider[1]
    if key == "roles":
        return kind == "mtls" and document.get(*provider, "roles_from") is None
    return kind in _LACK[key]


def _listed(document: Document, routes: list[Path]) -> str:
    named = ", ".join(_called(document, route) for route in routes[:_MAX_NAMED])
    return f"{named} and {len(routes) - _MAX_NAMED} more" if len(routes) > _MAX_NAMED else named


def _called(document: Document, route: Path) -> str:
    """The name of a route: its own, or its first host and path."""
    host = next((text for _, text in document.entries(*route, "hosts")), "")
    path = next((text for _, text in paths_of(document, route)), "")
    return document.get(*route, "name") or f"{host}{path}"


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    auth, of_route = demanded(config, route), route.of(AuthOfRoute)
    demands = of_route.roles or of_route.scopes or of_route.claims
    but = ", but 401 without a credential: the route makes demands" if demands and auth == "optional" else ""
    yield "auth", auth + but
    if of_route.providers is not None:
        yield "providers", f"any of {', '.join(of_route.providers)}"
    if of_route.roles:
        yield "roles", f"any of {', '.join(of_route.roles)}"
    if of_route.scopes:
        yield "scopes", f"all of {', '.join(of_route.scopes)}"
    if of_route.claims:
        yield "claims", ", ".join(f"{name}: {_value(value)}" for name, value in of_route.claims)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " or ".join(map(_value, value)) if isinstance(value, tuple) else str(value)


_STRENGTH = ("none", "optional", "required")


def weaker(config: Config) -> Less:
    return partial(_less, config)


def _less(config: Config, route: Route, other: Route, path: bytes) -> str | None:
    """How ``other`` demands less of its callers than ``route``, in words."""
    ours, theirs = _strength(config, route), _strength(config, other)
    if _STRENGTH.index(theirs) < _STRENGTH.index(ours):
        return "needs no authentication" if theirs == "none" else "lets anonymous callers pass"
    if ours == "none":
        return None
    mine, yours = route.of(AuthOfRoute), other.of(AuthOfRoute)
    if mine.providers is not None and yours.providers is None:
        return "takes the credentials of every provider"
    more = set(yours.providers or ()) - set(mine.providers or ())
    if mine.providers is not None and more:
        return f"takes the credentials of other providers: {', '.join(sorted(more))}"
    if mine.roles and not yours.roles:
        return "demands no role"
    if mine.roles and set(yours.roles) - set(mine.roles):
        return f"lets other roles pass: {', '.join(sorted(set(yours.roles) - set(mine.roles)))}"
    if set(mine.scopes) - set(yours.scopes):
        return f"does not demand the scope {', '.join(sorted(set(mine.scopes) - set(yours.scopes)))}"
    demands = dict(yours.claims)
    for name, value in mine.claims:
        if name not in demands:
            return f"does not demand the claim {name}"
        if _values(demands[name]) - _values(value):
            return f"lets other values of the claim {name} pass"
    return None


def _strength(config: Config, route: Route) -> str:
    auth, of_route = demanded(config, route), route.of(AuthOfRoute)
    demands = of_route.roles or of_route.scopes or of_route.claims
    return "required" if auth == "optional" and demands else auth


def _values(value: Any) -> set[tuple[type, Any]]:
    """``1`` and ``true`` are equal to Python."""
    return {(type(each), each) for each in (value if isinstance(value, tuple) else (value,))}


def refuse(old: Config, new: Config) -> Iterator[Problem]:
    """Refuses a reload that removes ``auth``, because that is probably a missing file.

    Unless it is said that no route needs it: by ``auth_default``, or by each route or a default of it.
    """
    if auth_of(old) is None or auth_of(new) is not None or new.gateway.of(AuthOfGateway).auth_default == "none":
        return
    if not new.routes or any(route.of(AuthOfRoute).auth != "none" for route in new.routes):
        sentence = "is missing, and a reload removes authentication only with `gateway.auth_default: none`"
        yield Problem(f"{sentence}, or `auth: none` for every route", ("auth",))


RULES = Rules(
    keys=KEYS,
    forms={
        "role": check_role,
        "role pattern": check_role_pattern,
        "scope": check_scope,
        "claim": check_claim,
        "algorithm": check_algorithm,
        "key header": check_header,
    },
    called={
        "role": "text without commas",
        "role pattern": "text without commas, with `*`",
        "scope": "scope (RFC 6749 §3.3)",
        "key header": "name of a header",
        "claim": "claim, with dots into nested ones",
        "algorithm": "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519, Ed448, HS256",
    },
    contents={
        "public key": public_key_file,
        "secret": secret_file,
        "passwords": passwords,
        "client secret": client_secret,
    },
    contents_by_path={"API keys": check_file},
    private=frozenset({"secret", "passwords", "client secret"}),
    checks=(section, verifiers, introspection, certificates, demands, providers),
    refuse=(refuse,),
    weaker=(weaker,),
    told=(told,),
)
