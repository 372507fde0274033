"""The keys of the YAML for client certificates."""

from __future__ import annotations

from apigw.config.keys import Rule, choice, file, list_of, map_of, text
from apigw.policy.auth.mtls.model import CertificateProvider

PROVIDER: Rule = {
    "name": text(
        "Names the provider. Services get it as `X-Auth-Provider`; it is part of the caller's identity.",
        "name",
        required=True,
    ),
    "ca_file": file(
        "PEM file: the authorities whose certificates are its callers'. No two providers may have the same authority.",
        "certificate",
        required=True,
    ),
    "id": choice(
        "What of a certificate is the caller's id: its only URI (such as a SPIFFE id), its only DNS name, its only "
        "e-mail address, or the whole subject. Without exactly one, 401.",
        "uri",
        "dns",
        "email",
        "subject",
        required=True,
        meant={
            **dict.fromkeys(("spiffe", "san", "san_uri"), "uri"),
            **dict.fromkeys(("cn", "dn", "common_name"), "subject"),
            **dict.fromkeys(("mail", "rfc822"), "email"),
        },
    ),
    "roles_from": choice(
        "The caller's roles: the organizational units (OU) of the subject.", "ou", nullable=True, default="no roles"
    ),
}

MTLS: Rule = list_of(
    "Providers of client certificates (mutual TLS), on listeners with `client_certificates` or `client_ca_file`.",
    map_of("", CertificateProvider, PROVIDER, meant=dict.fromkeys(("ca", "client_ca_file", "cafile"), "ca_file")),
)
