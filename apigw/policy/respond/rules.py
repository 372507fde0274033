"""Checks of fixed answers in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Config, Route
from apigw.config.rules import Rules
from apigw.policy.respond.model import BODILESS, respond_of
from apigw.policy.respond.schema import KEYS
from apigw.policy.transform.rules import field_names, parameters

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:; ?[\x20-\x7e]+)?")


def media_type(text: str) -> None:
    if not _MEDIA_TYPE.fullmatch(text):
        raise ValueError("is not a media type, such as text/html; charset=utf-8")


def responds(document: Document, files: Files) -> None:
    """Reports bodies where the status has none, and headers that cannot be written."""
    for path, route in document.entries("routes"):
        respond = route.get("respond") if isinstance(route, dict) else None
        if not respond:
            continue
        if respond.get("body") and respond.get("status") in BODILESS:
            document.report(
                (*path, "respond", "body"), f"does not go with status {respond['status']}, which has no body"
            )
        at = (*path, "respond", "headers")
        field_names(document, at, respond.get("headers"), {"content-type": "write respond.content_type"})
    parameters(document, ("respond", "headers", None))


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    respond = respond_of(route)
    if respond is not None:
        body = f"{respond.content_type}, {len(respond.body.encode())} bytes" if respond.body else "without a body"
        yield "answer", f"{respond.status}, {body}"


RULES = Rules(
    keys=KEYS, forms={"media type": media_type}, called={"media type": "media type"}, checks=(responds,), told=(told,)
)
"""The keys of fixed answers."""
