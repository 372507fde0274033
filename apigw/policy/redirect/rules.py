"""Checks of redirects in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.paths import paths_of
from apigw.config.rules import Rules
from apigw.policy.redirect.location import Location, as_pattern
from apigw.policy.redirect.model import Redirect, https_port, redirect_of
from apigw.policy.redirect.schema import KEYS
from apigw.policy.transform.rules import callers, parameters, patterns_in
from apigw.policy.transform.syntax import Name
from apigw.policy.transform.told import filled


def redirects(document: Document, files: Files) -> None:
    """Reports redirects onto themselves, and parameters that the route does not have."""
    listeners = document.get("gateway", "listen") or [""]
    secure = [isinstance(each, dict) and bool(each.get("tls")) for each in listeners if each is not None]
    for path, route in document.entries("routes"):
        if isinstance(route, dict) and route.get("redirect"):
            _loop(document, path, route, secure)
    parameters(document, ("redirect", "to"))
    patterns_in(document, ("redirect", "to"))
    callers(document, ("redirect", "to"))
    https = document.get("gateway", "https_redirect")
    if https and document.is_sound(("gateway", "listen")) and document.is_sound(("gateway", "trusted_proxies")):
        proxies = document.get("gateway", "trusted_proxies")
        if not any(secure) and not proxies:
            sentence = "would redirect every request for ever: no listener has tls, and there are no trusted_proxies"
            document.report(("gateway", "https_redirect"), sentence)


def _loop(document: Document, path: Path, route: dict[str, Any], secure: list[bool]) -> None:
    """Reports a redirect whose URL has the same route, whatever the request: the browser would give up."""
    status, methods = route["redirect"].get("status", Redirect("").status), route.get("methods")
    if any(route.get(key) for key in ("headers", "query", "cookies")):
        return
    if methods is not None and status not in (307, 308) and not {"GET", "HEAD"} & set(methods):
        return
    location = Location.parse(route["redirect"]["to"])
    if location.scheme and not _same_host(location, route, secure):
        return
    for _, own in paths_of(document, path):
        if as_pattern(location.path, own) == own:
            document.report((*path, "redirect", "to"), f"is where the redirect comes from: the route's own path {own}")
            return


def _same_host(location: Location, route: dict[str, Any], secure: list[bool]) -> bool:
    """Whether it is certain that a URL leads to the listener and the host that it comes from."""
    if not secure or any(each is not (location.scheme == "https://") for each in secure):
        return False
    hosts = route.get("hosts") or ()
    names = [hosts] if isinstance(hosts, str) else hosts
    return location.authority == (Name("host"),) or any(location.authority == (name,) for name in names)


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    if https_port(config) is not None:
        yield "https", "plain requests are redirected (308)"
    redirect = redirect_of(route)
    if redirect is not None:
        yield "redirect", f"{redirect.status} to {filled(redirect.to, route, path, b'')}"


RULES = Rules(
    keys=KEYS,
    forms={"redirect": Location.parse},
    called={"redirect": "URL or path, perhaps with braces"},
    checks=(redirects,),
    told=(told,),
)
"""The keys of redirects."""
