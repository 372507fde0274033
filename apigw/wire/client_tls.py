"""TLS to servers: the only place that verifies certificates of servers (docs/decisions/client-tls.md).

Twisted's own ``optionsForClientTLS`` is not used: from 26.4 on its verify callback accepts a certificate if the
comparison of names raises anything but ``VerificationError``, as for a certificate without a subjectAltName.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.tls import KeyPair, SecureFactory

# Forward secrecy and authenticated encryption first; the rest is for services that are older than that.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:!aNULL:!MD5:!DSS"
_NO_RENEGOTIATION: int = SSL.OP_NO_RENEGOTIATION
_MUST_VERIFY = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
# What ends in a number is an address for resolvers, in one of its old forms such as 127.1, and no name (RFC 1123 §2.1).
_NAME = re.compile(r"(?:[a-z0-9_-]+\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9_-]+").fullmatch
_SHOWN_NAMES = 5
_WHY = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "the self-signed certificate at the end of its chain is not trusted",
    20: "its issuer is not trusted",
    21: "its issuer is not trusted",
    26: "it is not a server certificate (extendedKeyUsage)",
    79: "its issuer is not a certificate authority",
}
"""Messages for the common X509_V_ERR_ numbers of OpenSSL (x509_vfy.h)."""


class CertificateRefused(Exception):
    """A server's certificate is refused; the text says why."""


class ClientTLS:
    """The TLS options of a client: trusted authorities, and its own certificate. They take memory: make one a service.

    ``ca_file`` is PEM with the trusted authorities; ``None`` for those of the platform. ``protocols`` are offered by
    ALPN (RFC 7301); the connection has the chosen one. Raises ``OSError``,
    ``ValueError`` and ``SSL.Error`` for unusable files.
    """

    def __init__(
        self, ca_file: str | None = None, certificate: KeyPair | None = None, protocols: list[bytes] | None = None
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        context.set_options(SSL.OP_NO_COMPRESSION | _NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # No session is resumed, so the certificate is seen, and verified, in each handshake.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._expected: Expected = WeakKeyDictionary()
        context.set_verify(_MUST_VERIFY, partial(_accept, self._expected))
        if ca_file is None:
            context.set_default_verify_paths()
        else:
            store = context.get_cert_store()
            assert store is not None
            with open(ca_file, "rb") as pem:
                for authority in x509.load_pem_x509_certificates(pem.read()):
                    store.add_cert(X509.from_cryptography(authority))
        if protocols is not None:
            context.set_alpn_protos(protocols)
        if certificate is not None:
            context.use_certificate_chain_file(certificate.certificate)
            context.use_privatekey_file(certificate.key)
            context.check_privatekey()
        self._context = context

    def to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Options for connections to ``host``. Raises ``ValueError`` if that is neither a name nor an address."""
        return _ToHost(self._context, Reference(host), self._expected)


class Reference:
    """The expected name or address of a server (RFC 9525 §6.1): ``host`` as in the configuration.

    Raises ``ValueError`` if it is neither.
    """

    def __init__(self, host: str) -> None:
        self.address: IPv4Address | IPv6Address | None = None
        self.name = ""
        """The name in A-labels (xn--…), in lower case, without a dot at the end; empty for an address."""
        try:
            self.address = ip_address(host)
        except ValueError:
            ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
            self.name = ascii_host.lower().removesuffix(".")
            if not _NAME(self.name):
                raise ValueError(f"{host!r} is neither a host name nor an address") from None

    def __str__(self) -> str:
        return self.name or str(self.address)

    def verify(self, certificate: x509.Certificate) -> None:
        """Raises ``CertificateRefused`` if the names differ, and ``ValueError`` or others if it cannot be parsed.

        Only DNS and IP names are compared, a name with names and an address with addresses (RFC 9525 §6.2). The common
        name is never used (§2). Names of other kinds, and malformed names, are ignored.
        """
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise CertificateRefused(f"it has no subjectAltName, so it is not for {self}") from None
        if self.address is not None:
            addresses = names.get_values_for_type(x509.IPAddress)
            if self.address not in addresses:
                raise self._mismatch([str(address) for address in addresses])
        else:
            presented = names.get_values_for_type(x509.DNSName)
            if not any(name_matches(name, self.name) for name in presented):
                raise self._mismatch(presented)

    def _mismatch(self, names: list[str]) -> CertificateRefused:
        shown = ", ".join(ascii(name[:100]) for name in names[:_SHOWN_NAMES])
        more = ", …" if len(names) > _SHOWN_NAMES else ""
        return CertificateRefused(f"it is not for {self} but for {shown or 'names of another kind'}{more}")


def name_matches(presented: str, name: str) -> bool:
    """RFC 9525 §6.3: equal without regard to case, or ``*`` in place of exactly the left-most label of ``name``.

    ``name`` is a valid one in lower case, so nothing malformed equals it. A wildcard needs two labels after it, so
    that it cannot match a whole top-level domain.
    """
    if not presented.isascii():
        return False
    presented = presented.lower()
    if presented.startswith("*."):
        parent = presented[2:]
        return "." in parent and name.partition(".")[2] == parent
    return presented == name


Expected = WeakKeyDictionary[SSL.Connection, tuple[Any, Reference]]
"""Of each connection the layer that has it, and who the server must be."""


@implementer(IOpenSSLClientConnectionCreator)
class _ToHost:
    def __init__(self, context: SSL.Context, reference: Reference, expected: Expected) -> None:
        self._context = context
        self._reference = reference
        self._expected = expected

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._reference.name:  # RFC 6066 §3: no addresses, and no dot at the end
            connection.set_tlsext_host_name(self._reference.name.encode("ascii"))
        self._expected[connection] = (tlsProtocol, self._reference)
        return connection


def _accept(expected: Expected, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback, for each certificate of the chain from the authority down to the server's own.

    The handshake goes on only if it returns true, and it runs before the client shows its certificate or sends a
    byte. An exception here is a refusal for pyOpenSSL and for cffi below it, so nothing that fails lets a server
    in; it is caught only to say why. It is one callback for all connections: pyOpenSSL's own for a connection would
    wait for the garbage collector.
    """
    if connection not in expected:
        return False
    protocol, reference = expected[connection]
    try:
        if not ok:
            raise CertificateRefused(_WHY.get(error, f"OpenSSL's verify error {error}"))
        if depth == 0:
            reference.verify(certificate.to_cryptography())
    except Exception as problem:
        why = str(problem) if isinstance(problem, CertificateRefused) else f"it cannot be read: {problem}"
        with suppress(Exception):  # whoever cannot be told has no connection either
            protocol.failVerification(Failure(CertificateRefused(f"the certificate is refused: {why}")))
        return False
    return True


@implementer(IStreamClientEndpoint)
class SecureEndpoint:
    """Connections to ``endpoint`` over TLS. They are there when the TCP connection is; the handshake follows."""

    def __init__(self, tls: IOpenSSLClientConnectionCreator, endpoint: IStreamClientEndpoint) -> None:
        self._tls = tls
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(_SecureFactory(self._tls, protocolFactory))
        return connecting.addCallback(_wrapped)


def _wrapped(layer: Any) -> Any:
    return layer.wrappedProtocol


class _SecureFactory(SecureFactory):
    is_client = True

    def __init__(self, tls: IOpenSSLClientConnectionCreator, wrapped: Any) -> None:
        super().__init__(wrapped)
        self._tls = tls

    def _connect(self, layer: Any) -> SSL.Connection:
        # The wrapper that endpoints put between transport and protocol is not needed after the connect.
        layer.transport.protocol = layer
        connection: SSL.Connection = self._tls.clientConnectionForTLS(layer)
        connection.set_connect_state()
        return connection
