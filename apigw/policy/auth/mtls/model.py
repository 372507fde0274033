"""The configuration of client certificates as identity."""

from __future__ import annotations

from attrs import frozen


@frozen
class CertificateProvider:
    """``id`` says which name of a certificate is the caller's id: uri, dns, email or subject. ``roles_from`` is ``ou``,
    or None for no roles."""

    name: str
    ca_file: str
    id: str
    roles_from: str | None = None
