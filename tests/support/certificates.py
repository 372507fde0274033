"""Certificates for tests: an authority of one's own, and what it signs."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_BEGIN = datetime.datetime(2020, 1, 1)
_END = datetime.datetime(2120, 1, 1)
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@frozen
class Pair:
    """Files with a certificate and its key."""

    certificate: str
    key: str


class Authority:
    """``file`` holds its certificate, and is what a client trusts. It is signed by itself, or by ``issuer``."""

    def __init__(self, directory: Path, name: str = "authority", issuer: Authority | None = None) -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        issuer = issuer or self
        builder = issuer._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(_SIGNS, critical=True)
        self.file = str(directory / f"{name}.pem")
        Path(self.file).write_bytes(builder.sign(issuer._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, *names: str, file: str = "", rsa_key: bool = False) -> Pair:
        """A certificate for ``names``, of which the first also names the files, unless ``file`` does."""
        return self.sign(names[0], *(x509.DNSName(name) for name in names), file=file, rsa_key=rsa_key)

    def sign(
        self,
        common_name: str,
        *names: x509.GeneralName,
        file: str = "",
        rsa_key: bool = False,
        subject: x509.Name | None = None,
        usage: Sequence[x509.ObjectIdentifier] = (),
        begin: datetime.datetime = _BEGIN,
        end: datetime.datetime = _END,
    ) -> Pair:
        """A certificate with names of any kind, or without a subjectAltName. ``usage`` is its extendedKeyUsage."""
        key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        if subject is None:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, key, begin, end)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        pair = Pair(*(str(self._directory / f"{file or common_name}.{kind}") for kind in ("crt", "key")))
        Path(pair.certificate).write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(pair.key).write_bytes(private)
        return pair

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        begin: datetime.datetime = _BEGIN,
        end: datetime.datetime = _END,
    ) -> x509.CertificateBuilder:
        """With both key identifiers, which Python 3.13 demands (RFC 5280 §4.2.1.1, §4.2.1.2)."""
        public, number = key.public_key(), x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, public, number, begin, end)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        return builder.add_extension(authority, critical=False)

    def client(self, pair: Pair | None = None) -> ssl.SSLContext:
        """How a client connects that trusts this authority alone. ``pair`` is the certificate that it shows."""
        context = ssl.create_default_context(cafile=self.file)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def server(self, pair: Pair, verify_clients: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if verify_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context
