"""Checks of token introspection in the configuration."""

from __future__ import annotations

from apigw.config.files import Files, text
from apigw.config.merge import Document
from apigw.policy.auth.jwt.rules import claim_name


def introspection(document: Document, files: Files) -> None:
    """Reports providers without exactly one secret. Warns of those that are asked without TLS."""
    for path, provider in document.entries("auth", "introspection"):
        if not isinstance(provider, dict):
            continue
        given = [key for key in ("client_secret", "client_secret_file") if provider.get(key) is not None]
        if len(given) > 1:
            at = (*path, given[1])
            document.report(at, f"is given beside {given[0]}: give only one of them", document.key(at))
        elif not given and document.is_sound(path):
            document.report(path, "has no secret: it needs client_secret or client_secret_file", document.key(path))
        for at, _ in document.entries(*path, "claims"):
            claim_name(document, at)
        if str(provider.get("url")).startswith("http://"):
            document.warn((*path, "url"), "sends tokens and the gateway's secret without TLS")


def client_secret(data: bytes) -> object:
    """The content of ``client_secret_file``."""
    found = text(data).decode("latin-1")
    if not found.isprintable():
        raise ValueError("does not hold one line of printable characters")
    return found
