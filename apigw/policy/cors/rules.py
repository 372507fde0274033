"""What a configuration may say of CORS."""

from __future__ import annotations

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.rules import Rules


def cors(document: Document, files: Files) -> None:
    """The origin ``*`` stands alone, and without credentials (Fetch standard, CORS protocol and credentials)."""
    for path, route in document.entries("routes"):
        held = document.get(*path, "cors") if isinstance(route, dict) else None
        if held and "*" in held["origins"]:
            if len(held["origins"]) > 1:
                document.report((*path, "cors", "origins"), "holds * beside others: write * alone, or leave it out")
            if held.get("credentials"):
                document.report((*path, "cors", "credentials"), "cannot be true with the origin *: name the origins")


RULES = Rules(checks=(cors,))
