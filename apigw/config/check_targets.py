"""Checks of the targets of a service, and of how its requests are shared out among them."""

from __future__ import annotations

from typing import Any

from apigw.config import addresses
from apigw.config.merge import Document
from apigw.config.model import Path, Target

READ = {"url": addresses.target, "dns": addresses.dns_target, "srv": addresses.srv_target}
"""The keys that say where a target is, and what reads each."""


def targets(document: Document, path: Path) -> set[str]:
    """Reports repeated targets, weights that leave none, and keys that do not fit. Returns the schemes."""
    seen: dict[tuple[str, str, str, int], Path] = {}
    weights: list[int] = []
    for at, entry in document.entries(*path, "targets"):
        place, target = _read(document, at, entry)
        if target is None:
            continue
        first = seen.setdefault((target.lookup, target.scheme, target.host.lower(), target.port), place)
        if first != place:
            document.report(place, f"is the same target as the one at {document.place(first)}: give that one a weight")
        weights.append(entry.get("weight", 1) if isinstance(entry, dict) else 1)
        if isinstance(entry, dict):
            _only_of_names(document, at, entry)
    if weights and not any(weights):
        document.report((*path, "targets"), "have no weight but 0, so none would get any request")
    return {scheme for _, scheme, _, _ in seen}


def _read(document: Document, at: Path, entry: Any) -> tuple[Path, Target | None]:
    """Where the target stands, and what it is; None if that is not right, which has been reported."""
    if isinstance(entry, str):
        return at, addresses.target(entry)
    given = [key for key in READ if entry.get(key) is not None]
    if len(given) != 1:
        if not document.is_sound(at):
            return at, None
        said = "has none of url, dns and srv" if not given else f"has {' and '.join(given)}: write one of them"
        document.report(at, said)
        return at, None
    (key,) = given
    return (*at, key), READ[key](entry[key])


def _only_of_names(document: Document, at: Path, entry: dict[str, Any]) -> None:
    local, weight = (*at, "allow_local"), (*at, "weight")
    if entry.get("allow_local") and entry.get("url") is not None:
        document.report(local, "has no effect: it is for dns and srv", document.key(local))
    if entry.get("srv") is not None and entry.get("weight") is not None:
        document.report(weight, "has no effect: the records of the name have weights", document.key(weight))


def balance(document: Document, path: Path) -> None:
    """Reports a hash by both a header and a cookie, or by none."""
    at = (*path, "balance", "hash")
    by = document.get(*at)
    if isinstance(by, dict) and len(by) != 1:
        document.report(at, "goes by both header and cookie: write one of them" if by else "goes by nothing")
