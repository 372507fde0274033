"""Checks of splits in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apigw.config.files import Files, text
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.problem import Problem
from apigw.config.rules import Rules
from apigw.policy.split.cookie import POSITIONS
from apigw.policy.split.model import SplitBy, services_of, split_of
from apigw.policy.split.schema import KEYS
from apigw.routing.rules import KnownServices

LEAST_SECRET = 32
"""Bytes, as of a key for HMAC-SHA256 (RFC 2104 §3)."""
LEAST_DIFFERENT = 8
"""Different bytes of a secret: one of fewer was not made at random."""


def split_by(text: str) -> None:
    if text in ("header", "cookie"):
        raise ValueError(f"does not say which: write {{{text}: NAME}}")
    if text != "principal":
        raise ValueError("is not principal, nor a map such as {header: X-Name} or {cookie: name}")


def secrets(data: bytes) -> list[bytes]:
    """Raises ``ValueError`` with a fragment that follows the file, or the key."""
    held = text(data).split()
    if not held:
        raise ValueError("holds no secret")
    for each in held:
        if len(each) < LEAST_SECRET or len(set(each)) < LEAST_DIFFERENT:
            raise ValueError(
                f"holds a secret of {len(each)} bytes that can be guessed: `openssl rand -hex 32` makes a good one"
            )
    return held


def splits(document: Document, files: Files) -> None:
    """Reports services that do not exist, weights that are all 0, and cookies without a secret."""
    known = KnownServices(document)
    secret = document.get("gateway", "cookie_secret")
    if secret is not None:
        try:
            secrets(secret.encode())
        except ValueError as error:
            document.report(("gateway", "cookie_secret"), str(error))
    if secret is not None and document.get("gateway", "cookie_secret_file") is not None:
        document.report(("gateway", "cookie_secret_file"), "does not go with cookie_secret")
    gateway = document.tree.get("gateway")
    has_secret = isinstance(gateway, dict) and any(gateway.get(key) for key in ("cookie_secret", "cookie_secret_file"))
    for path, route in document.entries("routes"):
        if isinstance(route, dict):
            weights, by = route.get("split"), route.get("split_by")
            if weights is not None:
                _weights(document, (*path, "split"), weights, known)
            if by is not None:
                _by(document, path, by, weights, has_secret)


def _weights(document: Document, path: Path, weights: dict[str, Any], known: KnownServices) -> None:
    for name in weights:
        known.check((*path, name), name, document.key((*path, name)))
    if not weights:
        document.report(path, "is empty: it needs at least one service, with its weight")
    elif not any(weights.values()):
        document.report(path, "has no weight but 0, so no service would get a request")


def _by(document: Document, path: Path, by: Any, weights: dict[str, int] | None, has_secret: bool) -> None:
    at = (*path, "split_by")
    if weights is None:
        if document.is_sound((*path, "split")):
            document.report(at, "has no effect without split", document.key(at))
        return
    named = [key for key in ("header", "cookie") if by.get(key) is not None] if isinstance(by, dict) else []
    if isinstance(by, dict) and len(named) != 1:
        document.report(at, "goes by both header and cookie: write one of them" if named else "goes by nothing")
    elif named == ["cookie"]:
        if not has_secret:
            document.report((*at, "cookie"), "needs gateway.cookie_secret_file, whose secret signs it")
        for name, weight in weights.items():
            if 0 < weight * POSITIONS < sum(weights.values()):
                where = (*path, "split", name)
                document.report(where, "is less than 0.01 % of all weights, the least share of clients with a cookie")


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    held = split_of(route)
    if held is None or held.split is None:
        return
    total = sum(weight for _, weight in held.split)
    shares = ", ".join(f"{name} {100 * weight / total:.4g}%" for name, weight in held.split)
    yield "split", f"{shares}; {_told_by(held.split_by)}"


def _told_by(by: str | SplitBy | None) -> str:
    if by is None:
        return "each request at random"
    if isinstance(by, str):
        return "by the caller; at random if anonymous"
    return f"by the cookie {by.cookie}" if by.cookie else f"by the header {by.header}; at random without it"


def unused(config: Config, rules: Rules) -> Iterator[Problem]:
    """Warns of services that no route names: who adds one easily forgets its route."""
    used = {name for route in config.routes for name in services_of(route)}
    for service in config.services:
        if service.name not in used:
            path = ("services", service.name)
            yield Problem("gets no requests: no route names it", path, config.origins.get(path))


RULES = Rules(
    keys=KEYS,
    forms={"split by": split_by},
    called={"split by": "`principal`"},
    contents={"cookie secret": secrets},
    private=frozenset({"cookie secret"}),
    checks=(splits,),
    told=(told,),
    reviews=(unused,),
)
