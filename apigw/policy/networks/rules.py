"""Checks of networks in the configuration, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.rules import Less, Rules
from apigw.config.validate import shown
from apigw.policy.networks.model import Networks
from apigw.policy.networks.schema import KEYS

TOLD = 5
"""Networks that ``apigw routes`` prints of a list."""


def networks(document: Document, files: Files) -> None:
    """Warns of a network that every IPv4 or IPv6 client is in."""
    for path in (("gateway",), *(path for path, _ in document.entries("routes"))):
        for at, network in document.entries(*path, "deny"):
            _everybody(document, at, network, "refuses every client of its kind: to close a route, write maintenance")
        for at, network in document.entries(*path, "allow"):
            _everybody(document, at, network, "lets every client of its kind pass")


def _everybody(document: Document, path: Path, network: object, sentence: str) -> None:
    if isinstance(network, str) and network != "unix:" and ip_network(network).prefixlen == 0:
        document.warn(path, f"{shown(document, path, network)} {sentence}")


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    for where, held in (("", route.of(Networks)), (" of the gateway", config.gateway.of(Networks))):
        if held.allow is not None:
            yield f"allow{where}", _few(held.allow)
        if held.deny:
            yield f"deny{where}", _few(held.deny)


def told_unmatched(config: Config) -> Iterator[tuple[str, str]]:
    yield from told(config, Route("/"), b"/")


def _few(networks: tuple[str, ...]) -> str:
    more = len(networks) - TOLD
    return ", ".join(networks[:TOLD]) + (f" and {more} more" if more > 0 else "")


def weaker(config: Config) -> Less:
    return _less


def _less(route: Route, other: Route, path: bytes) -> str | None:
    """How ``other`` lets more clients pass than ``route``, in words."""
    ours, theirs = route.of(Networks), other.of(Networks)
    if ours.allow is not None and theirs.allow is None:
        return "lets clients of every network pass"
    more = set(theirs.allow or ()) - set(ours.allow or ())
    if ours.allow is not None and more:
        return f"lets clients of other networks pass: {_few(tuple(sorted(more)))}"
    less = set(ours.deny) - set(theirs.deny)
    return f"does not deny {_few(tuple(sorted(less)))}" if less else None


RULES = Rules(
    keys=KEYS,
    checks=(networks,),
    told=(told,),
    told_unmatched=(told_unmatched,),
    weaker=(weaker,),
)
