"""TLS to clients: several certificates for one port, chosen by SNI, and replaceable while the port is open."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IAddress, IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from zope.interface import implementer

from apigw.wire.reactor.secure import Secure
from apigw.wire.tls_errors import words_of

ALPN = (b"h2", b"http/1.1")
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_NO_RENEGOTIATION: int = SSL.OP_NO_RENEGOTIATION
# Mozilla's "intermediate" choice for TLS 1.2: forward secrecy and authenticated encryption only. 1.3 has no others.
# AES-128 before AES-256, as there and in browsers: a handshake with SHA-256 costs less than with SHA-384 (360
# and 390 µs, measured with OpenSSL 4.0). A client that prefers ChaCha20 has no instructions for AES, and gets it.
_CIPHERS = b"ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_PRIORITIZE_CHACHA = 1 << 21  # SSL_OP_PRIORITIZE_CHACHA of OpenSSL's ssl.h, for which pyOpenSSL has no name


@frozen
class KeyPair:
    """PEM files. ``certificate`` has the chain, the server's own certificate first."""

    certificate: str
    key: str


@implementer(IOpenSSLServerConnectionCreator)
class ServerContexts:
    """The server's side of TLS connections. ``use`` replaces the certificates for new connections.

    Every connection begins with ``base``, which has no certificate, and gets that of the name that it asks for. The
    keys of session tickets are those of ``base`` (pyOpenSSL cannot set them). So sessions resume after certificates
    were renewed, and with every process that was forked after ``base`` was made.

    Where clients may show a certificate, ``reactor.secure`` tells the hosts of the one that was chosen, so that
    requests for others can be refused.

    The first certificate is for names that no certificate has, and for clients without SNI. Of two with the same names
    and keys of different kinds, each client gets the one that it can verify: ECDSA before RSA where it can do both.
    """

    def __init__(
        self,
        pairs: Iterable[KeyPair],
        min_version: str = "1.2",
        clients: str = "none",
        authorities: Collection[str] = (),
        base: SSL.Context | None = None,
    ) -> None:
        """``clients`` says whether they must show a certificate: none, optional or required. ``authorities`` are PEM
        files with those that are trusted to sign it. ``base``: ``context`` with the same arguments, which nobody has
        used yet.
        """
        self._min_version = min_version
        self._clients = clients
        self._base = context(min_version, clients) if base is None else base
        self._base.set_tlsext_servername_callback(self._choose)
        self._exact: dict[str, SSL.Context] = {}
        self._default: SSL.Context
        self.use(self.load(pairs, authorities))

    def load(self, pairs: Iterable[KeyPair], authorities: Collection[str] = ()) -> list[tuple[list[str], SSL.Context]]:
        """Read the files. Raises ``OSError`` and ``SSL.Error``, and changes nothing."""
        loaded: list[tuple[list[str], SSL.Context]] = []
        kinds: list[set[type]] = []
        for pair in pairs:
            certificate = _first(pair.certificate)
            names, kind = _names(certificate), type(certificate.public_key())
            for (others, context), had in zip(loaded, kinds, strict=True):
                if names and sorted(names) == sorted(others) and kind not in had:
                    _use(context, pair)
                    had.add(kind)
                    break
            else:
                loaded.append((names, self._context(pair, certificate, authorities)))
                kinds.append({kind})
        return loaded

    def use(self, loaded: list[tuple[list[str], SSL.Context]]) -> None:
        exact: dict[str, SSL.Context] = {}
        for names, context in loaded:
            for name in names:
                exact.setdefault(name, context)
        self._exact, self._default = exact, loaded[0][1]

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._base, None)

    def _context(self, pair: KeyPair, certificate: x509.Certificate, authorities: Collection[str]) -> SSL.Context:
        made = context(self._min_version, self._clients)
        _use(made, pair)
        if self._clients != "none":
            trust_authorities(made, authorities)
            made.set_app_data(_hosts(certificate))
        return made

    def _choose(self, connection: SSL.Connection) -> None:
        """OpenSSL asks once in each handshake, also of a client without SNI or with a session."""
        chosen = None
        name = connection.get_servername()
        if name is not None:
            wanted = name.decode("latin-1").lower().rstrip(".")
            chosen = self._exact.get(wanted) or self._exact.get("*." + wanted.partition(".")[2])
        connection.set_context(chosen or self._default)


def context(min_version: str, clients: str) -> SSL.Context:
    """A server's context, without certificates and authorities. ``clients`` are as for ``ServerContexts``.

    Where clients may show a certificate, no session resumes: OpenSSL would accept that of the session, though it has
    expired, or its authority is trusted no more. Nor does a session's ticket hold the intermediate certificates.
    """
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.set_min_proto_version(_VERSIONS[min_version])
    made.set_cipher_list(_CIPHERS)
    made.set_tls13_ciphersuites(_SUITES)
    made.set_options(SSL.OP_NO_COMPRESSION | _NO_RENEGOTIATION)
    made.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA)
    made.set_mode(SSL.MODE_RELEASE_BUFFERS)
    made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Without one, OpenSSL ends the handshake of a client that shows its certificate and resumes a session.
    made.set_session_id(b"apigw")
    made.set_alpn_select_callback(select_protocol)
    if clients != "none":
        made.set_options(SSL.OP_NO_TICKET)
        must = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if clients == "required" else 0
        made.set_verify(SSL.VERIFY_PEER | must, lambda *answer: bool(answer[-1]))
    return made


def trust_authorities(context: SSL.Context, files: Iterable[str]) -> None:
    """Accept clients' certificates of all authorities in these PEM files, and tell clients their names.

    An intermediate authority is trusted where its root is not: whoever lists it means it.
    """
    store = context.get_cert_store()
    assert store is not None, "a context without a store"
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    told = set[bytes]()
    for file in files:
        for certificate in authorities_in(file):
            store.add_cert(X509.from_cryptography(certificate))
            if (name := certificate.subject.public_bytes()) not in told:
                told.add(name)
                context.add_client_ca(certificate)


def authorities_in(file: str) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one. Raises ``OSError`` and ``ValueError``."""
    with open(file, "rb") as pem:
        return x509.load_pem_x509_certificates(pem.read())


def select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """The answer to a client's ALPN."""
    for protocol in ALPN:
        if protocol in offered:
            return protocol
    # RFC 7301 §3.2: a fatal alert. What is raised here makes pyOpenSSL send it.
    raise SSL.Error([("", "", "the client offers neither h2 nor http/1.1 by ALPN")])


def _use(context: SSL.Context, pair: KeyPair) -> None:
    """A context has one certificate for each kind of key."""
    context.use_certificate_chain_file(pair.certificate)
    context.use_privatekey_file(pair.key)
    context.check_privatekey()


def _first(file: str) -> x509.Certificate:
    with open(file, "rb") as pem:
        return x509.load_pem_x509_certificate(pem.read())


def ends_of(files: Iterable[str]) -> dict[str, float]:
    """When the certificates end, in Unix time, by their names; by the name of its file for one that has none. Of two
    with the same name, the earlier end."""
    ends: dict[str, float] = {}
    for file in files:
        certificate = _first(file)
        end = certificate.not_valid_after_utc.timestamp()
        for name in _names(certificate) or [os.path.basename(file)]:
            ends[name] = min(end, ends.get(name, end))
    return ends


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _hosts(certificate: x509.Certificate) -> frozenset[bytes]:
    """What a request on its connections may be for: names, wildcards, and addresses, in lower case."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    shown = [f"[{address}]" if ":" in address else address for address in addresses]
    return frozenset(name.lower().encode("ascii") for name in (*names.get_values_for_type(x509.DNSName), *shown))


def reason(error: Exception) -> str:
    """Why a certificate or key is unusable; OpenSSL's text if OpenSSL refused it."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return words_of(error) or "OpenSSL does not say why"
    return str(error)


class SecureFactory(Factory):
    """Wraps the protocols of a factory in TLS. ``_connect`` makes OpenSSL's side of a connection."""

    noisy = False
    is_client: ClassVar[bool]

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def doStart(self) -> None:
        super().doStart()
        self._wrapped.doStart()

    def doStop(self) -> None:
        super().doStop()
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """``None``, which closes the connection before a handshake, where the wrapped factory takes none."""
        wrapped = self._wrapped.buildProtocol(addr)
        return None if wrapped is None else Secure(wrapped, self._connect, self.is_client)

    def _connect(self, layer: Any) -> SSL.Connection:
        raise NotImplementedError


class TLSFactory(SecureFactory):
    """That of a listener. ``contexts``: a ``ServerContexts``, or an endpoint's own."""

    is_client = False

    def __init__(self, contexts: Any, wrapped: Any) -> None:
        super().__init__(wrapped)
        self._contexts = contexts
        self._has_context = IOpenSSLContextFactory.providedBy(contexts)  # that of an ``ssl:`` endpoint

    def _connect(self, layer: Any) -> SSL.Connection:
        contexts = self._contexts
        if self._has_context:
            connection = SSL.Connection(contexts.getContext(), None)
        else:
            connection = contexts.serverConnectionForTLS(layer)
        connection.set_accept_state()
        return connection
