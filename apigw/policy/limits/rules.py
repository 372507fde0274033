"""Checks of rate limits in the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.rules import Rules
from apigw.config.units import duration_text
from apigw.config.validate import shown
from apigw.policy.limits.model import rate_limits_of
from apigw.policy.limits.schema import KEYS
from apigw.routing.pattern import Pattern
from apigw.routing.rules import Patterns


def rate_limits(document: Document, files: Files) -> None:
    """Reports two limits with one endpoint and scope. Warns of a limit that matches no route."""
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
                document.report(at, f"has the same endpoint and scope as the limit at {document.place(first)}")
        if document.whole and not routed.overlap(pattern):
            document.warn(at, f"{shown(document, at, limit['endpoint'])} matches no route")


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    for limit in rate_limits_of(config):
        if Pattern.parse(limit.endpoint).matches(path):
            each = {"user": "for each user", "ip": "for each address"}.get(limit.scope, "for all callers together")
            yield "limit", f"{limit.limit} in {duration_text(limit.window)} {each} ({limit.endpoint})"


RULES = Rules(keys=KEYS, checks=(rate_limits,), told=(told,))
