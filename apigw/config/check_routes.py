"""Checks of each route by itself."""

from __future__ import annotations

from collections.abc import Sequence

from apigw.config.merge import Document


def ends(document: Document, keys: Sequence[str]) -> None:
    """Reports routes that do not say where their requests go, or say it twice. ``keys`` are those that say it."""
    known = ", ".join(keys)
    for path, _ in document.entries("routes"):
        route = document.tree["routes"][path[-1]]  # with the keys whose values are wrong: they are not missing
        if not isinstance(route, dict):
            continue
        written = [key for key in route if key in keys]
        if not written:
            document.report(path, f"does not say where its requests go: one of {known} is missing")
        for key in written[1:]:
            at = (*path, key)
            document.report(at, f"does not go with {written[0]}: a route has only one of {known}", document.key(at))
