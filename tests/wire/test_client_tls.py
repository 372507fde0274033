"""Which certificate is believed to be the server's: a table, each row shown by a real server on a socket.

A server that is not believed receives no byte of the application, and nothing that it says is heard.
"""

from __future__ import annotations

import datetime
import socket
import ssl
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from OpenSSL import SSL
from support.pem import private_pem
from support.secure_peer import SecurePeer
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw.wire.client_tls import CertificateRefused, ClientTLS, Reference, SecureEndpoint
from apigw.wire.reactor.secure import Secure
from apigw.wire.tls import KeyPair

SECRET = b"AUTH pa55word\r\n"
ANSWER = b"+OK\r\n"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
OTHER, EMAIL, DNS, X400, DIRECTORY, URI, IP, OBJECT = 0xA0, 0x81, 0x82, 0xA3, 0xA4, 0x86, 0x87, 0x88
"""The tags of a GeneralName (RFC 5280 §4.2.1.6)."""
AN_OTHER_NAME = bytes.fromhex("06032a0304a0060c0473706f74")
"""An object identifier of nobody's, and a UTF8String."""


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    return bytes([tag]) + (bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2)) + content


def sans(*names: tuple[int, bytes]) -> bytes:
    """A subjectAltName, byte for byte: no library would write some of them."""
    return der(0x30, b"".join(der(*name) for name in names))


def dns(*names: bytes) -> bytes:
    return sans(*((DNS, name) for name in names))


def ip(*addresses: str) -> bytes:
    return sans(*((IP, ip_address(address).packed) for address in addresses))


@frozen
class Row:
    """One certificate, shown to a client that means ``host``. ``why`` is what the operator is told; empty: believed."""

    title: str
    host: str
    san: bytes | None
    why: str = ""
    common_name: str = "server"
    begin: datetime.datetime = NOW - DAY
    end: datetime.datetime = NOW + DAY
    signer: str = "authority"
    """``authority``, ``stranger``, ``self``, or ``leaf``: a certificate of the authority that is not one itself."""
    usages: tuple[x509.ObjectIdentifier, ...] = ()
    extension: x509.UnrecognizedExtension | None = None
    critical: bool = False
    stricter: bool = False
    """Whether OpenSSL would believe it: what cryptography cannot read is refused."""

    def __str__(self) -> str:
        return self.title


GOOD = dns(b"good.test")
NOT_FOR = "it is not for good.test"
LONG = dns(*(b"%d.example.test" % number for number in range(2000)), b"good.test")

ROWS = [
    # The right name.
    Row("its name", "good.test", GOOD),
    Row("one of many names", "good.test", LONG),
    Row("in upper case", "good.test", dns(b"GOOD.Test")),
    Row("asked for in upper case", "Good.TEST", GOOD),
    Row("asked for with a dot at the end", "good.test.", GOOD),
    Row("a single label", "localhost", dns(b"localhost")),
    Row("an A-label", "xn--mnchen-3ya.test", dns(b"xn--mnchen-3ya.test")),
    Row("an A-label asked for as a U-label", "münchen.test", dns(b"xn--mnchen-3ya.test")),
    Row("critical, and no subject's name", "good.test", GOOD, common_name="", critical=True),
    Row(
        "for servers and clients",
        "good.test",
        GOOD,
        usages=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    ),
    # An odd name beside the right one.
    Row("a URI beside", "good.test", sans((URI, b"urn:uuid:1234"), (DNS, b"good.test"))),
    Row("a SPIFFE URI beside", "good.test", sans((DNS, b"good.test"), (URI, b"spiffe://mesh/ns/a/sa/b"))),
    Row("an other name beside", "good.test", sans((OTHER, AN_OTHER_NAME), (DNS, b"good.test"))),
    Row("an e-mail address beside", "good.test", sans((EMAIL, b"root@evil.test"), (DNS, b"good.test"))),
    Row("an address beside", "good.test", sans((IP, b"\x7f\0\0\1"), (DNS, b"good.test"))),
    Row("an address as a DNS name beside", "good.test", dns(b"127.0.0.1", b"good.test")),
    Row("a name with NUL beside", "good.test", dns(b"evil.test\0.good.test", b"good.test")),
    Row("a wildcard for everything beside", "good.test", dns(b"*", b"*.test", b"good.test")),
    Row("an empty name beside", "good.test", dns(b"", b"good.test")),
    Row("an object identifier beside", "good.test", sans((OBJECT, b"\x2a\3\4"), (DNS, b"good.test"))),
    Row("a directory name beside", "good.test", sans((DIRECTORY, b"\x30\0"), (DNS, b"good.test"))),
    Row(
        "an X.400 address beside",
        "good.test",
        sans((X400, b"\x30\0"), (DNS, b"good.test")),
        "it cannot be",
        stricter=True,
    ),
    # Another's name.
    Row("another name", "good.test", dns(b"evil.test"), NOT_FOR),
    Row("another's URI and name", "good.test", sans((URI, b"urn:uuid:1234"), (DNS, b"evil.test")), NOT_FOR),
    Row("the name below", "good.test", dns(b"a.good.test"), NOT_FOR),
    Row("the name above", "a.good.test", dns(b"good.test"), "it is not for a.good.test"),
    Row("the name as a beginning", "good.test", dns(b"good.test.evil.test"), NOT_FOR),
    Row("the name as an end", "good.test", dns(b"notgood.test"), NOT_FOR),
    Row("only a common name, which is right", "good.test", None, "it has no subjectAltName", common_name="good.test"),
    Row("nothing at all", "good.test", None, "it has no subjectAltName", common_name=""),
    Row(
        "a common name that is right, another DNS name",
        "good.test",
        dns(b"evil.test"),
        NOT_FOR,
        common_name="good.test",
    ),
    Row("a common name that is right, and a URI", "good.test", sans((URI, b"a:b")), NOT_FOR, common_name="good.test"),
    Row("the name as a URI", "good.test", sans((URI, b"https://good.test/")), NOT_FOR),
    Row("the name as an e-mail address", "good.test", sans((EMAIL, b"good.test")), NOT_FOR),
    Row("only an other name", "good.test", sans((OTHER, AN_OTHER_NAME)), NOT_FOR),
    Row("an empty subjectAltName", "good.test", sans(), "it ", common_name="good.test"),
    # Malformed names.
    Row("NUL after the name", "good.test", dns(b"good.test\0.evil.test"), NOT_FOR),
    Row("NUL at the end", "good.test", dns(b"good.test\0"), NOT_FOR),
    Row("a dot at the end", "good.test", dns(b"good.test."), NOT_FOR),
    Row("a dot in front", "good.test", dns(b".good.test", b".test"), NOT_FOR),
    Row("white space around", "good.test", dns(b" good.test", b"good.test\n", b"good.test "), NOT_FOR),
    Row("a name that is not ASCII", "xn--mnchen-3ya.test", dns("münchen.test".encode()), "it is not for xn--"),
    Row(
        "a letter that is lowered to ASCII",
        "kelvin.test",
        dns("\N{KELVIN SIGN}elvin.test".encode()),
        "it is not for kelvin.test",
    ),
    Row("bytes after the names", "good.test", GOOD + b"\0", "it cannot be read", stricter=True),
    # Wildcards.
    Row("a wildcard", "a.good.test", dns(b"*.good.test")),
    Row("a wildcard for an A-label", "xn--mnchen-3ya.good.test", dns(b"*.good.test")),
    Row("a wildcard and two labels", "a.b.good.test", dns(b"*.good.test"), "it is not for a.b.good.test"),
    Row("a wildcard and no label", "good.test", dns(b"*.good.test"), NOT_FOR),
    Row(
        "a wildcard for a part of a label",
        "foo.good.test",
        dns(b"f*.good.test", b"*o.good.test", b"f*o.good.test"),
        "it is",
    ),
    Row("a wildcard further right", "a.good.test", dns(b"a.*.test"), "it is not for a.good.test"),
    Row("two wildcards", "a.b.good.test", dns(b"*.*.good.test"), "it is not for a.b.good.test"),
    Row("a wildcard for a top-level domain", "good.test", dns(b"*.test"), NOT_FOR),
    Row("a wildcard for everything", "good.test", dns(b"*", b"*.", b"*.*"), NOT_FOR),
    Row("a wildcard alone", "localhost", dns(b"*"), "it is not for localhost"),
    Row("a wildcard in an A-label", "xn--mnchen-3ya.good.test", dns(b"xn--*.good.test"), "it is not for"),
    Row("a wildcard for addresses", "127.0.0.1", dns(b"*.0.0.1"), "it is not for 127.0.0.1"),
    # Addresses.
    Row("its address", "127.0.0.1", ip("127.0.0.1")),
    Row("its IPv6 address", "::1", ip("::1")),
    Row("its IPv6 address, written in another way", "2001:DB8:0::1", ip("2001:db8::1")),
    Row("another address", "127.0.0.1", ip("127.0.0.2"), "it is not for 127.0.0.1 but for '127.0.0.2'"),
    Row("an IPv4 address in IPv6", "127.0.0.1", ip("::ffff:127.0.0.1"), "it is not for 127.0.0.1"),
    Row("its address as a DNS name", "127.0.0.1", dns(b"127.0.0.1"), "it is not for 127.0.0.1"),
    Row("its address as a common name", "127.0.0.1", GOOD, "it is not for 127.0.0.1", common_name="127.0.0.1"),
    Row("an address of three bytes", "127.0.0.1", sans((IP, b"\x7f\0\0")), "it cannot be read"),
    Row("an address with its mask", "127.0.0.1", sans((IP, b"\x7f\0\0\1\xff\xff\xff\xff")), "it "),
    Row("an address for a name", "good.test", ip("127.0.0.1"), NOT_FOR),
    # Who signed it, when, and for what.
    Row("expired", "good.test", GOOD, "it has expired", begin=NOW - 2 * DAY, end=NOW - DAY),
    Row("not valid yet", "good.test", GOOD, "it is not valid yet", begin=NOW + DAY, end=NOW + 2 * DAY),
    Row("another authority", "good.test", GOOD, "the self-signed certificate", signer="stranger"),
    Row("signed by itself", "good.test", GOOD, "it is self-signed", signer="self"),
    Row(
        "signed by a certificate that is no authority",
        "good.test",
        GOOD,
        "its issuer is not a certificate authority",
        signer="leaf",
    ),
    Row(
        "for clients only",
        "good.test",
        GOOD,
        "it is not a server certificate (extendedKeyUsage)",
        usages=(ExtendedKeyUsageOID.CLIENT_AUTH,),
    ),
    Row(
        "a critical extension that nobody knows",
        "good.test",
        GOOD,
        "OpenSSL's verify error 34",
        extension=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"),
    ),
]


class Issuer:
    def __init__(self, name: str, authority: bool = True, signer: Issuer | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = signer or self
        builder = x509.CertificateBuilder(
            signer.name, self.name, self.key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY
        ).add_extension(x509.BasicConstraints(authority, None), critical=True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


class Authorities:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        authority = Issuer("authority")
        self._issuers = {
            "authority": authority,
            "stranger": Issuer("stranger"),
            "leaf": Issuer("leaf", authority=False, signer=authority),
        }
        self.file, self.stranger_file = (str(directory / f"{name}.pem") for name in ("authority", "stranger"))
        for name in ("authority", "stranger"):
            (directory / f"{name}.pem").write_bytes(pem(self._issuers[name].certificate))

    def issue(self, row: Row, file: str = "server") -> KeyPair:
        """The files of the row's certificate, with its chain, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, row.common_name)] if row.common_name else []
        subject = x509.Name(names)
        own = row.signer == "self"
        signer = self._issuers["authority" if own else row.signer]
        builder = x509.CertificateBuilder(
            subject if own else signer.name, subject, key.public_key(), x509.random_serial_number(), row.begin, row.end
        )
        if row.san is not None:
            san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, row.san)
            builder = builder.add_extension(san, row.critical)
        if row.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(row.usages), critical=False)
        if row.extension is not None:
            builder = builder.add_extension(row.extension, critical=True)
        certificate = builder.sign(key if own else signer.key, hashes.SHA256())
        chain = b"" if own else pem(signer.certificate)
        pair = KeyPair(*(str(self._directory / f"{file}.{kind}") for kind in ("pem", "key")))
        Path(pair.certificate).write_bytes(pem(certificate) + chain)
        Path(pair.key).write_bytes(private_pem(key))
        return pair


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return Authorities(tmp_path_factory.mktemp("certificates"))


class Server(SecurePeer):
    """Greets as soon as its handshake is done. ``ask``: the authority's file, where clients may show a certificate."""

    def __init__(self, pair: KeyPair, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ask: str = "") -> None:
        self.asked_for: list[str | None] = []
        self.shown: list[bytes | None] = []
        self.resumed: list[bool | None] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.context.minimum_version = self.context.maximum_version = version
        if ask:
            self.context.verify_mode = ssl.CERT_OPTIONAL
            self.context.load_verify_locations(ask)
        self.context.sni_callback = lambda _, name, __: self.asked_for.append(name)
        super().__init__(self.context, self._answered, ANSWER)

    def _answered(self, _: bytes) -> bytes:
        connected = self.shaken[-1]
        self.shown.append(connected.getpeercert(binary_form=True))
        self.resumed.append(connected.session_reused)
        return b""


@implementer(IHandshakeListener)
class Client(Protocol):
    """Writes its secret as soon as it is let, as a Redis client does."""

    transport: Any
    received = b""
    shaken = False

    def __init__(self) -> None:
        self.ended: Deferred[BaseException | None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(SECRET)

    def handshakeCompleted(self) -> None:
        self.shaken = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.value)


async def meet(tls: ClientTLS, host: str, server: Server) -> tuple[Client, BaseException | None]:
    """One connection to ``server``, by a client that means ``host``, and how it ended."""
    endpoint = SecureEndpoint(tls.to(host), TCP4ClientEndpoint(reactor, "127.0.0.1", server.port))
    client = await endpoint.connect(Factory.forProtocol(Client))
    assert isinstance(client, Client)
    return client, await client.ended


def assert_believed(client: Client, server: Server) -> None:
    assert (client.shaken, client.received, server.received) == (True, ANSWER, SECRET)


def assert_refused(client: Client, why: BaseException | None, server: Server) -> None:
    assert (client.shaken, client.received, server.received) == (False, b"", b"")
    assert isinstance(why, CertificateRefused)


@pytest.mark.parametrize(
    ("row", "version"),
    [(row, ssl.TLSVersion.TLSv1_3) for row in ROWS]
    + [(next(row for row in ROWS if bool(row.why) == refused), ssl.TLSVersion.TLSv1_2) for refused in (False, True)],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_certificates(authorities: Authorities, row: Row, version: ssl.TLSVersion) -> None:
    """The server is believed if its certificate is for the host; any doubt refuses, and then it receives nothing."""
    with closing(Server(authorities.issue(row), version)) as server:
        client, why = await meet(ClientTLS(authorities.file), row.host, server)
    if row.why:
        assert_refused(client, why, server)
        assert f"the certificate is refused: {row.why}" in str(why)
    else:
        assert_believed(client, server)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_openssl_comes_to_the_same_result(authorities: Authorities, row: Row) -> None:
    """The rows are right, as an implementation says that has nothing to do with ours."""
    context = ssl.create_default_context(cafile=authorities.file)
    context.hostname_checks_common_name = False
    context.verify_flags &= ~getattr(
        ssl, "VERIFY_X509_STRICT", 0
    )  # default since Python 3.13; private authorities fail
    host = row.host.removesuffix(".").encode("idna").decode()
    with (
        closing(Server(authorities.issue(row))) as server,
        socket.create_connection(("127.0.0.1", server.port)) as plain,
    ):
        try:
            with context.wrap_socket(plain, server_hostname=host) as connected:
                believed = connected.recv(10) == ANSWER
        except ssl.SSLCertVerificationError:
            believed = False
    assert believed is (not row.why or row.stricter)


RIGHT = Row("right", "good.test", GOOD)
WRONG = Row("wrong", "good.test", dns(b"evil.test"))


@pytest.mark.parametrize("error", [RuntimeError("a fault"), SSL.Error([]), MemoryError(), KeyError(0)], ids=repr)
@pytest_twisted.ensureDeferred
async def test_a_fault_of_our_own_refuses(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Where the comparison itself fails, nobody is believed."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Reference, "verify", fail)
    with closing(Server(authorities.issue(RIGHT))) as server:
        client, why = await meet(ClientTLS(authorities.file), "good.test", server)
    assert_refused(client, why, server)


@pytest_twisted.ensureDeferred
async def test_a_fault_in_saying_so_refuses(authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is believed either where it cannot be told why."""
    monkeypatch.setattr(Secure, "failVerification", None)
    with closing(Server(authorities.issue(WRONG))) as server:
        client, why = await meet(ClientTLS(authorities.file), "good.test", server)
    assert (client.shaken, client.received, server.received) == (False, b"", b"")
    assert isinstance(why, SSL.Error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest_twisted.ensureDeferred
async def test_no_session_is_resumed(authorities: Authorities, version: ssl.TLSVersion) -> None:
    """Each handshake shows the certificate, so that one that was replaced is seen."""
    tls = ClientTLS(authorities.file)
    with closing(Server(authorities.issue(RIGHT), version)) as server:
        for _ in range(3):
            await meet(tls, "good.test", server)
        server.context.load_cert_chain(*_files(authorities.issue(WRONG)))
        client, _ = await meet(tls, "good.test", server)
    assert server.resumed == [False] * 3
    assert not client.shaken


def _files(pair: KeyPair) -> tuple[str, str]:
    return pair.certificate, pair.key


@pytest.mark.parametrize(
    ("host", "asked"),
    [("good.test", "good.test"), ("Good.Test.", "good.test"), ("127.0.0.1", None), ("::1", None)],
)
@pytest_twisted.ensureDeferred
async def test_the_name_that_is_asked_for(authorities: Authorities, host: str, asked: str | None) -> None:
    """A name goes into the handshake without its last dot, and an address does not (RFC 6066 §3)."""
    with closing(Server(authorities.issue(RIGHT))) as server:
        await meet(ClientTLS(authorities.file), host, server)
    assert server.asked_for == [asked]


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_our_own(authorities: Authorities) -> None:
    """It is shown to a server that is believed and asks for it, with the certificates that lead to its authority."""
    own = authorities.issue(Row("own", "", dns(b"gateway.test"), usages=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "own")
    tls = ClientTLS(authorities.file, own)
    with closing(Server(authorities.issue(RIGHT), ask=authorities.file)) as server:
        client, _ = await meet(tls, "good.test", server)
    assert_believed(client, server)
    assert server.shown == [
        x509.load_pem_x509_certificate(Path(own.certificate).read_bytes()).public_bytes(Encoding.DER)
    ]
    with closing(Server(authorities.issue(WRONG), ask=authorities.file)) as server:
        client, why = await meet(tls, "good.test", server)
    assert_refused(client, why, server)
    assert server.shown == []


@pytest_twisted.ensureDeferred
async def test_the_platforms_authorities(authorities: Authorities, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the platform says who is trusted, and with one it does not."""
    monkeypatch.setenv("SSL_CERT_FILE", authorities.file)
    other = authorities.stranger_file
    for file, believed in ((None, True), (other, False)):
        with closing(Server(authorities.issue(RIGHT))) as server:
            client, why = await meet(ClientTLS(file), "good.test", server)
        if believed:
            assert_believed(client, server)
        else:
            assert_refused(client, why, server)


@pytest_twisted.ensureDeferred
async def test_several_authorities_in_one_file(authorities: Authorities, tmp_path: Path) -> None:
    """An authority is replaced by trusting the old and the new for a while."""
    both = tmp_path / "both.pem"
    both.write_bytes(
        Path(authorities.stranger_file).read_bytes() + b"a comment\n" + Path(authorities.file).read_bytes()
    )
    tls = ClientTLS(str(both))
    for signer in ("authority", "stranger"):
        with closing(Server(authorities.issue(Row("right", "good.test", GOOD, signer=signer)))) as server:
            client, _ = await meet(tls, "good.test", server)
        assert_believed(client, server)


NO_NAMES = ("", ".", "a..b", ".a", "*.good.test", "a b", "a\0b", "[::1]", "a/b", "a:1", "good.test\n")
OLD_ADDRESSES = ("127.0.0.1.", "127.1", "0x7f.1", "a.0x7f", "2130706433")


@pytest.mark.parametrize("host", [*NO_NAMES, *OLD_ADDRESSES])
def test_hosts_that_are_none(authorities: Authorities, host: str) -> None:
    """What is neither a name nor an address is nobody's."""
    with pytest.raises(ValueError, match="neither a host name nor an address"):
        ClientTLS(authorities.file).to(host)


def test_files_that_cannot_be_used(authorities: Authorities, tmp_path: Path) -> None:
    """A file without authorities does not mean those of the platform."""
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    for file, error in ((tmp_path / "missing.pem", OSError), (empty, ValueError)):
        with pytest.raises(error):
            ClientTLS(str(file))
    own = authorities.issue(RIGHT)
    other = authorities.issue(RIGHT, "other")
    with pytest.raises(SSL.Error):
        ClientTLS(authorities.file, KeyPair(own.certificate, other.key))
