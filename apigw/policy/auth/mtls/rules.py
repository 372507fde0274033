"""Checks of client certificates in the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificates

from apigw.config.files import Files
from apigw.config.merge import Document
from apigw.config.model import Path


def certificates(document: Document, files: Files) -> None:
    """Reports an authority of two providers, and listeners and providers that lack one another."""
    owners: dict[bytes, Path] = {}
    for path, provider in document.entries("auth", "mtls"):
        at = (*path, "ca_file")
        if not isinstance(provider, dict) or not document.is_sound(at) or "ca_file" not in provider:
            continue
        for digest in _digests(files, provider["ca_file"]):
            first = owners.setdefault(digest, at)
            if first != at:
                place = document.place(first)
                document.report(
                    at, f"has an authority that the one at {place} has too: an authority can have only one provider"
                )
                break
    asking = list(_asking(document))
    if not document.whole:
        return
    providers = [path for path, _ in document.entries("auth", "mtls")]
    for path, its_own in asking:
        if not its_own and not providers and document.is_sound(("auth", "mtls")):
            at = (*path, "tls", "client_certificates")
            document.report(at, "needs authorities: client_ca_file, or providers in auth.mtls", document.key(at))
    if providers and not asking and document.is_sound(("gateway", "listen")):
        sentence = "has no callers: no listener has tls with client_certificates: optional or required"
        document.warn(providers[0], sentence)


def _asking(document: Document) -> Iterator[tuple[Path, bool]]:
    """The listeners that ask for certificates, and whether they name authorities of their own."""
    for path, listen in document.entries("gateway", "listen"):
        tls = listen.get("tls") if isinstance(listen, dict) else None
        if isinstance(tls, dict):
            its_own = tls.get("client_ca_file") is not None
            given = tls.get("client_certificates")
            if given in ("optional", "required") or (given is None and its_own):
                yield path, its_own


def _digests(files: Files, name: str) -> list[bytes]:
    try:
        return [each.fingerprint(SHA256()) for each in load_pem_x509_certificates(files.data(name))]
    except ValueError:  # the check of the file's content has said so
        return []
