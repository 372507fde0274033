"""Checks of CORS in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Route
from apigw.config.rules import Rules
from apigw.policy.cors.model import cors_of
from apigw.policy.cors.schema import KEYS


def cors(document: Document, files: Files) -> None:
    """Reports ``*`` beside other origins or with credentials (Fetch standard, CORS protocol and credentials)."""
    for path, route in document.entries("routes"):
        held = document.get(*path, "cors") if isinstance(route, dict) else None
        if held and "*" in held["origins"]:
            if len(held["origins"]) > 1:
                document.report((*path, "cors", "origins"), "contains * beside others: write * alone, or leave it out")
            if held.get("credentials"):
                document.report((*path, "cors", "credentials"), "cannot be true with the origin *: name the origins")


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    held = cors_of(route)
    if held is not None:
        yield "cors", f"allowed origins: {', '.join(held.origins)}"


def header(text: str) -> None:
    """A header's name. ``*`` is refused: HTTP allows it as a name, but for browsers it has another meaning."""
    if text == "*":
        raise ValueError("is not the name of a header: name each")
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", text):
        raise ValueError("is not the name of a header")


RULES = Rules(keys=KEYS, forms={"header": header}, checks=(cors,), told=(told,))
