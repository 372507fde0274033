"""What a configuration may say of rate limits."""

from __future__ import annotations

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.routing.pattern import Pattern
from apigw.routing.rules import Patterns


def rate_limits(document: Document, files: Files) -> None:
    """One limit for a pattern and scope. A pattern that no route meets is probably a slip, but harms nobody."""
    limits = [(path, limit) for path, limit in document.entries("rate_limits") if "endpoint" in limit]
    paths = (route.get("path") for _, route in document.entries("routes") if isinstance(route, dict))
    routed = Patterns(Pattern.parse(path) for path in paths if path is not None)
    seen: dict[tuple[object, str], Path] = {}
    for path, limit in limits:
        pattern = Pattern.parse(limit["endpoint"])
        at = (*path, "endpoint")
        if "scope" in limit:
            first = seen.setdefault((pattern.shape, limit["scope"]), at)
            if first != at:
                document.report(at, f"has the same endpoint and scope as the one at {document.place(first)}")
        if document.whole and not routed.overlap(pattern):
            document.warn(at, f"{shown(document, at, limit['endpoint'])} matches no route")


RULES = Rules(checks=(rate_limits,))
