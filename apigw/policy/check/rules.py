"""Checks of external checks in the configuration, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator

from apigw.config import units
from apigw.config.files import Files
from apigw.config.forms import token
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.nearest import hint
from apigw.config.rules import Less, Rules
from apigw.config.secrecy import masked_in_url
from apigw.config.units import duration_text
from apigw.config.validate import shown
from apigw.policy.check.model import CheckOfRoute, ChecksSection
from apigw.policy.check.schema import KEYS
from apigw.wire.headers import HOP_BY_HOP

_OURS = HOP_BY_HOP | frozenset(b"host content-length expect via forwarded x-real-ip proxy date".split())
"""Fields that the gateway writes itself, or that belong to a connection."""


def check_header(text: str) -> None:
    """Raises ``ValueError`` with a fragment that follows the text."""
    token(text)
    name = text.lower()
    if name.encode("ascii") in _OURS or name.startswith("x-forwarded-"):
        raise ValueError("is a header that the gateway writes itself, or that belongs to the connection")


def checks(document: Document, files: Files) -> None:
    """Reports routes whose check there is not, and a cache that would never know a request again.

    Warns of names in ``take`` that clients send for themselves.
    """
    known = [str(path[-1]) for path, _ in document.entries("checks")]
    for path, route in document.entries("routes"):
        name = route.get("check_with") if isinstance(route, dict) else None
        if isinstance(name, str) and name not in known and document.whole and document.is_sound(("checks",)):
            at = (*path, "check_with")
            document.report(at, f"names the check {shown(document, at, name)}, which does not exist{hint(name, known)}")
    for path, check in document.entries("checks"):
        if isinstance(check, dict):
            _check(document, path)


def _check(document: Document, path: Path) -> None:
    for at, name in document.entries(*path, "send"):
        cache = document.get(*path, "cache")
        if isinstance(name, str) and name.lower() == "x-request-id" and cache is not None and units.seconds(cache):
            document.report(at, f"{shown(document, at, name)} is another for each request: with cache, leave it out")
    for at, name in document.entries(*path, "take"):
        if isinstance(name, str) and name.lower() in ("authorization", "cookie"):
            document.warn(at, f"{shown(document, at, name)} of clients reaches no service any more, on no route")
        elif isinstance(name, str) and name.lower() == "x-request-id":
            document.report(at, f"{shown(document, at, name)} is a header that the gateway writes itself")


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    name = route.of(CheckOfRoute).check_with
    for check in config.of(ChecksSection).checks:
        if check.name == name:
            remembered = f", a pass is remembered for {duration_text(check.cache)}" if check.cache else ""
            url, timeout = masked_in_url(check.url), duration_text(check.timeout)
            yield "check with", f"{name}, at {url}, within {timeout}{remembered}"


def weaker(config: Config) -> Less:
    return _less


def _less(route: Route, other: Route, path: bytes) -> str | None:
    """How ``other`` asks less about its requests than ``route``, in words."""
    ours, theirs = route.of(CheckOfRoute).check_with, other.of(CheckOfRoute).check_with
    return f"is not checked with {ours}" if ours is not None and ours != theirs else None


RULES = Rules(
    keys=KEYS,
    forms={"check header": check_header},
    called={"check header": "name of a header"},
    checks=(checks,),
    told=(told,),
    weaker=(weaker,),
)
