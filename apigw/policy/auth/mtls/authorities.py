"""Whose certificates are believed: the authorities of one provider."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from cryptography.x509 import Certificate, ExtendedKeyUsage, ExtensionNotFound, load_pem_x509_certificates
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import (
    FILETYPE_ASN1,
    X509,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    X509StoreFlags,
    load_certificate,
)

from apigw.config.errors import ConfigError, Problem, problem_at
from apigw.config.files import read
from apigw.config.model import Origin, Path
from apigw.contract.principal import Principal
from apigw.policy.auth.mtls.model import CertificateProvider
from apigw.policy.auth.mtls.names import CHALLENGE, id_of, roles_of
from apigw.policy.auth.refusals import Refusal

EXPIRED = Refusal("expired", "the certificate, or one of its authorities, has expired")
NOT_YET_VALID = Refusal("not_yet_valid", "the certificate, or one of its authorities, is not valid yet")
PURPOSE = Refusal("purpose", "the certificate is not for clients")

_TIMES = {9: NOT_YET_VALID, 10: EXPIRED}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _CERT_HAS_EXPIRED."""


class Authorities:
    """One provider, with the certificates in ``pem``. Raises ``ValueError`` if these cannot be read.

    The handshake has verified what a client has shown by the authorities of all providers, or by others; here OpenSSL
    verifies it once more by these alone.
    """

    def __init__(self, provider: CertificateProvider, pem: bytes) -> None:
        self.name = provider.name
        self.stamp = (provider, sha256(pem).digest())
        """The same where the same certificates are taken for the same callers."""
        self._id = provider.id
        self._has_roles = provider.roles_from is not None
        self._trusted = [X509.from_cryptography(each) for each in load_pem_x509_certificates(pem)]

    def principal(self, own: X509, others: Sequence[X509], now: float) -> Principal | None:
        """Who has shown these, at ``now`` (Unix seconds); ``None`` if they are not of these authorities.

        Raises ``Unauthorized`` if they are, and do not prove who it is.
        """
        try:
            chain = [each.to_cryptography() for each in self._chain(own, others, now)]
        except X509StoreContextError as error:
            refusal = _TIMES.get(error.errors[0])
            if refusal is None:
                return None
            raise refusal.by(CHALLENGE) from None
        certificate = chain[0]
        if not _is_for_clients(certificate):
            raise PURPOSE.by(CHALLENGE)
        return Principal(
            self.name,
            id_of(certificate, self._id),
            roles_of(certificate) if self._has_roles else (),
            begins=max(each.not_valid_before_utc.timestamp() for each in chain),
            expires=min(each.not_valid_after_utc.timestamp() for each in chain) + 1,  # that second is included
        )

    def _chain(self, own: X509, others: Sequence[X509], now: float) -> list[X509]:
        """From the client's own certificate to that of an authority. An intermediate one that is listed is trusted
        without its root: whoever lists it means it."""
        store = X509Store()  # anew: the time of a store can be set once
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        store.set_time(datetime.fromtimestamp(now, UTC))
        for each in self._trusted:
            store.add_cert(each)
        return X509StoreContext(store, own, others).get_verified_chain()


def read_shown(shown: Sequence[bytes]) -> list[X509]:
    """The certificates that a client has shown in DER. Raises ``OpenSSL.crypto.Error``."""
    return [load_certificate(FILETYPE_ASN1, each) for each in shown]


def _is_for_clients(certificate: Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def authorities_of(
    configured: Sequence[CertificateProvider], origins: Mapping[Path, Origin]
) -> Generator[None, None, list[Authorities]]:
    """Those of each provider, in steps. Raises ``ConfigError``."""
    found: list[Authorities] = []
    problems: list[Problem] = []
    for index, each in enumerate(configured):
        try:
            found.append(Authorities(each, read(each.ca_file)))
        except ValueError as error:
            problems.append(problem_at(origins, ("auth", "mtls", index, "ca_file"), f"{each.ca_file!r} {error}"))
        yield
    if problems:
        raise ConfigError(problems)
    return found
