"""TLS towards clients, in memory: which certificate, which version, which protocol, and the same bytes as without."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from OpenSSL import SSL
from support.certificates import Authority, Pair
from support.fake_transport import FakeTransport
from support.http1_server import PEER, Echo, Hold
from twisted.internet.task import Clock

from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory, ends_of

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> list[Pair]:
    return [
        authority.issue("first.example"),
        authority.issue("a.example", "b.example"),
        authority.issue("*.example", file="wildcard"),
    ]


def keys(pairs: list[Pair]) -> list[KeyPair]:
    return [KeyPair(pair.certificate, pair.key) for pair in pairs]


@define
class Server:
    contexts: ServerContexts
    settings: Settings = field(factory=Settings)
    clock: Clock = field(factory=Clock)
    application: type[Echo] = Echo
    seen: list[Echo] = field(factory=list)
    channels: ChannelFactory = field(init=False)
    factory: TLSFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        deadlines = Deadlines(self.clock)
        deadlines.start()
        self.channels = ChannelFactory(self.settings, deadlines, self._requested, self._refused, lambda: 0.0)
        self.factory = TLSFactory(self.contexts, self.channels)

    def _requested(self, request: Request) -> None:
        self.seen.append(self.application(request))
        self.seen[-1].begin()

    def _refused(self, refusal: Refused, peer: bytes, secure: bool, protocol: bytes) -> tuple[int, Headers, bytes]:
        assert peer == b"192.0.2.1"
        assert secure is ("does not speak TLS" not in refusal.reason)
        return refusal.status, [(b"content-length", b"2")], b"no"

    def connect(self, context: ssl.SSLContext, name: str | None = "first.example") -> Client:
        protocol = self.factory.buildProtocol(PEER)
        return Client(self, context, name, FakeTransport(self.clock).connect(protocol))

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds * 10))):
            self.clock.advance(min(seconds, 0.1))


@define
class Client:
    server: Server
    context: ssl.SSLContext
    name: str | None
    transport: FakeTransport
    received: bytes = b""
    ended: bool = False
    """Whether the server has said good-bye, as TLS wants it."""
    incoming: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)
    tls: ssl.SSLObject = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname=self.name)

    def exchange(self) -> None:
        """Carry what there is in both directions, until there is no more."""
        while True:
            out = self.outgoing.read()
            if out:
                self.transport.deliver(out)
            self.server.clock.advance(0)
            came = self.transport.take()
            if came:
                self.incoming.write(came)
            if not out and not came:
                return

    def shake(self) -> Client:
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange()
            else:
                break
        self.exchange()
        return self

    def send(self, data: bytes) -> None:
        for place in range(0, len(data), 10_000):
            self.tls.write(data[place : place + 10_000])
            self.exchange()

    def receive(self) -> bytes:
        """What came since the last time."""
        self.exchange()
        received = b""
        try:
            while piece := self.tls.read(65536):
                received += piece
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return received

    @property
    def certificate(self) -> list[str]:
        subject: Any = self.tls.getpeercert()
        return [value for kind, value in subject["subjectAltName"] if kind == "DNS"]


def unchecked(authority: Authority) -> ssl.SSLContext:
    """A client that takes any name, and looks at the certificate itself."""
    context = authority.client()
    context.check_hostname = False
    return context


@pytest.fixture
def server(pairs: list[Pair]) -> Server:
    return Server(ServerContexts(keys(pairs)))


# Certificates.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first.example", "first.example"),
        ("a.example", "a.example"),
        ("B.EXAMPLE", "a.example"),
        ("other.example", "*.example"),
        ("deep.other.example", "first.example"),
        ("example", "first.example"),
        ("unknown.test", "first.example"),
        (None, "first.example"),
    ],
)
def test_the_certificate_of_the_name(server: Server, authority: Authority, name: str | None, expected: str) -> None:
    """A client sees the certificate of the name that it asked for, else the first."""
    client = server.connect(unchecked(authority), name).shake()
    assert client.certificate[0] == expected


@pytest.mark.parametrize("order", [1, -1], ids=["RSA first", "ECDSA first"])
@pytest.mark.parametrize(
    ("ciphers", "expected"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "EC"),
        (None, "EC"),
    ],
)
def test_a_client_gets_the_certificate_that_it_can_verify(
    authority: Authority, tmp_path: Path, order: int, ciphers: str | None, expected: str
) -> None:
    """Two certificates for the same names, one with an RSA key: the other is for whoever can do ECDSA."""
    names = ("both.example", "www.both.example")
    kinds = [authority.issue(*names, file="rsa", rsa_key=True), authority.issue(*reversed(names), file="ecdsa")]
    context = authority.client()
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    client = Server(ServerContexts(keys(kinds[::order]))).connect(context, "www.both.example").shake()
    shown = client.tls.getpeercert(binary_form=True)
    assert shown is not None
    assert type(x509.load_der_x509_certificate(shown).public_key()).__name__.endswith(f"{expected}PublicKey")


def test_certificates_are_replaced(server: Server, authority: Authority, pairs: list[Pair], tmp_path: Path) -> None:
    """After a reload new connections see the new certificates, and open ones go on."""
    old = server.connect(unchecked(authority), "a.example").shake()
    renewed = Authority(tmp_path, "renewed")
    server.contexts.use(server.contexts.load(keys([renewed.issue("a.example")])))
    assert server.connect(renewed.client(), "a.example").shake().certificate == ["a.example"]
    assert server.connect(unchecked(renewed), "first.example").shake().certificate == ["a.example"]
    old.send(GET)
    assert old.receive().endswith(b"GET /a ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize("name", ["a.example", "unknown.test", None])
def test_a_session_resumes_after_certificates_were_renewed(
    server: Server, authority: Authority, pairs: list[Pair], version: ssl.TLSVersion, name: str | None
) -> None:
    """The keys of its ticket are not those of a certificate."""
    context = unchecked(authority)
    context.maximum_version = version
    first = server.connect(context, name).shake()
    first.send(GET)
    assert first.receive()  # and with it the session's ticket
    renewed = [authority.issue(name, file=f"renewed-{name}") for name in ("first.example", "a.example")]
    server.contexts.use(server.contexts.load(keys(renewed)))
    second = server.connect(context, name)
    second.tls.session = first.tls.session
    second.shake().send(GET)
    assert second.tls.session_reused
    assert second.receive().endswith(b"GET /a ")


def test_certificates_that_cannot_be_read(
    server: Server, authority: Authority, pairs: list[Pair], tmp_path: Path
) -> None:
    """A reload that fails changes nothing."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    cases: list[tuple[str, str, Any]] = [
        (str(tmp_path / "missing"), pairs[0].key, OSError),
        (pairs[0].certificate, str(tmp_path / "missing"), (OSError, SSL.Error)),
        (str(garbage), pairs[0].key, (ValueError, SSL.Error)),
        (pairs[0].certificate, pairs[1].key, SSL.Error),
    ]
    for certificate, key, error in cases:
        with pytest.raises(error):
            server.contexts.load([KeyPair(certificate, key)])
    assert server.connect(authority.client()).shake().certificate == ["first.example"]


def test_names_of_certificates(pairs: list[Pair]) -> None:
    """The end of a certificate is told by each name under which it is offered."""
    assert [*ends_of(pair.certificate for pair in pairs)] == ["first.example", "a.example", "b.example", "*.example"]


# Versions and protocols.


@pytest.mark.parametrize(
    ("lowest", "highest", "version"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("1.2", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("1.3", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("1.3", ssl.TLSVersion.TLSv1_2, None),
    ],
)
def test_versions(
    pairs: list[Pair], authority: Authority, lowest: str, highest: ssl.TLSVersion, version: str | None
) -> None:
    """A client that is too old is refused, and the others use what both know."""
    server = Server(ServerContexts(keys(pairs), lowest))
    context = authority.client()
    context.maximum_version = highest
    if version is None:
        with pytest.raises(ssl.SSLError):
            server.connect(context).shake()
        server.wait(0)
        assert not server.channels.channels
    else:
        client = server.connect(context).shake()
        assert client.tls.version() == version
        client.send(GET)
        assert client.receive().endswith(b"GET /a ")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["spdy/3", "http/1.1"], "http/1.1"),
        ([], None),
    ],
)
def test_alpn(server: Server, authority: Authority, offered: list[str], chosen: str | None) -> None:
    """HTTP/2 for those who know it, whatever the certificate; HTTP/1.1 for those who do not say."""
    for name in ("first.example", "a.example"):
        context = authority.client()
        if offered:
            context.set_alpn_protocols(offered)
        client = server.connect(context, name).shake()
        assert client.tls.selected_alpn_protocol() == chosen
        if chosen == "h2":
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            assert client.receive()[3:4] == b"\x04"
        else:
            client.send(GET)
            assert client.receive().endswith(b"GET /a ")
            assert server.seen[-1].request.stream.secure


def test_h2_is_spoken_where_it_was_agreed(server: Server, authority: Authority) -> None:
    """HTTP/1.1 on a connection that is HTTP/2 is an error, not a request."""
    context = authority.client()
    context.set_alpn_protocols(["h2"])
    client = server.connect(context).shake()
    client.send(GET)
    assert b"HTTP/1.1" not in client.receive()
    assert server.seen == []


@pytest.mark.parametrize("clients", ["optional", "required"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_client_certificates(
    pairs: list[Pair], authority: Authority, tmp_path: Path, clients: str, version: ssl.TLSVersion
) -> None:
    """Those of the authorities get in, for the hosts of the listener's certificate; others only if they may have none,
    but not with a certificate of somebody else. The connection keeps what was shown (Python shows the authority too),
    and no session resumes."""
    another = Authority(tmp_path, "another")
    authorities = [authority.file, another.file]
    server = Server(ServerContexts(keys(pairs), "1.2", clients, authorities))
    issued = authority.issue("client")
    contexts = [authority.client(issued), authority.client(another.issue("client")), authority.client()]
    for context in contexts:
        context.maximum_version = version
    expected = [[der(issued.certificate)], [der(str(tmp_path / "client.crt"))], []]
    for context, its_own in zip(contexts, expected, strict=True):
        if not its_own and clients == "required":
            continue
        for name in ("first.example", "a.example"):
            client = server.connect(context, name).shake()
            assert secure_layer(client).certificates[1:2] == its_own
            client.send(GET.replace(b"Host: a", b"Host: " + name.encode()))
            assert client.receive().endswith(b"GET /a ")
            again = server.connect(context, name)
            again.tls.session = client.tls.session
            again.shake()
            assert not again.tls.session_reused
            assert secure_layer(again).certificates[1:2] == its_own
            client.send(GET)
            assert client.receive().startswith(b"HTTP/1.1 421 ")
    seen = len(server.seen)
    refused = [authority.client(Authority(tmp_path, "stranger").issue("client"))]
    for context in refused + contexts[2:] if clients == "required" else refused:
        with pytest.raises(ssl.SSLError):
            client = server.connect(context).shake()
            client.send(GET)
            client.receive()
    assert len(server.seen) == seen


def test_authorities_of_clients_are_replaced(pairs: list[Pair], authority: Authority, tmp_path: Path) -> None:
    """After a reload, handshakes take the clients of the new ones alone."""
    server = Server(ServerContexts(keys(pairs), "1.2", "required", [authority.file]))
    renewed = Authority(tmp_path, "renewed")
    server.contexts.use(server.contexts.load(keys(pairs), [renewed.file]))
    assert secure_layer(server.connect(authority.client(renewed.issue("client"))).shake()).certificates
    with pytest.raises(ssl.SSLError):
        client = server.connect(authority.client(authority.issue("client"))).shake()
        client.send(GET)
        client.receive()


def der(file: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(file).read_text())


def secure_layer(client: Client) -> Any:
    return client.transport.protocol


# HTTP/1.1 over it.


def test_what_is_no_tls(server: Server) -> None:
    """What is neither TLS nor a request is not answered, and the connection closed."""
    transport = FakeTransport(server.clock).connect(server.factory.buildProtocol(PEER))
    transport.deliver(GET.lower())
    server.wait(0)
    assert transport.lost or transport.aborted
    assert b"HTTP" not in transport.taken
    server.wait(0)
    assert not server.channels.channels
    assert server.seen == []


def test_a_request_without_tls(server: Server) -> None:
    """A request in clear is refused in clear, and what follows it is dropped, until the connection ends in time."""
    transport = FakeTransport(server.clock).connect(server.factory.buildProtocol(PEER))
    transport.deliver(GET)
    transport.deliver(GET)
    assert transport.taken.startswith(b"HTTP/1.1 400 ")
    assert transport.taken.count(b"HTTP/1.1") == 1
    assert len(server.channels.channels) == 1
    server.wait(6)
    assert not server.channels.channels
    assert server.seen == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_handshake_that_stalls(pairs: list[Pair], authority: Authority, begun: bool) -> None:
    """A client that does not finish its handshake is hung up on as one that does not finish its headers."""
    server = Server(ServerContexts(keys(pairs)), Settings(client_header_timeout=10))
    client = server.connect(authority.client())
    if begun:
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.transport.deliver(client.outgoing.read()[:50])
    server.wait(9.8)
    assert not client.transport.lost
    server.wait(0.4)
    assert client.transport.lost
    assert not server.channels.channels


def test_pipelining_and_bodies(server: Server, authority: Authority) -> None:
    """Layers of TLS deliver in other pieces, which makes no difference."""
    client = server.connect(authority.client()).shake()
    body = bytes(range(256)) * 1000
    client.send(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET + GET)
    assert [echo.body for echo in server.seen] == [body, b"", b""]
    assert client.receive().count(b"HTTP/1.1 200 OK") == 3


def test_a_large_answer_at_the_pace_of_the_client(pairs: list[Pair], authority: Authority) -> None:
    """What the client does not read is not piled up in the layer of TLS either."""
    server = Server(ServerContexts(keys(pairs)), application=Hold)
    client = server.connect(authority.client()).shake()
    client.send(GET)
    client.transport.stalled = True
    request = server.seen[0].request

    class Producer:
        paused = False

        def pauseProducing(self) -> None:
            self.paused = True

        def resumeProducing(self) -> None:
            self.paused = False

        def stopProducing(self) -> None: ...

    producer = Producer()
    request.start(200, [(b"content-length", b"3000000")])
    request.stream.set_producer(producer)  # type: ignore[arg-type]
    sent = 0
    received = b""
    while sent < 3_000_000:
        while not producer.paused and sent < 3_000_000:
            request.write(b"x" * 10_000)
            request.flush()
            sent += 10_000
        assert client.transport.most_buffered < 200_000
        client.transport.drain(50_000)
        received += client.receive()
    request.finish()
    client.transport.drain()
    received += client.receive()
    assert received.partition(b"\r\n\r\n")[2] == b"x" * 3_000_000


def test_the_end(pairs: list[Pair], authority: Authority) -> None:
    """The last answer is followed by TLS's good-bye, so that nobody can cut it short unnoticed."""
    server = Server(ServerContexts(keys(pairs)))
    client = server.connect(authority.client()).shake()
    client.send(b"GET /a HTTP/1.0\r\n\r\n")
    assert client.receive().endswith(b"GET /a ")
    assert client.ended
    client.tls.unwrap()
    client.exchange()
    server.wait(0)
    assert client.transport.lost


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/9\r\n\r\n", b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"]
)
def test_a_refusal(server: Server, authority: Authority, data: bytes) -> None:
    """A client that was refused can read why, although it goes on sending; that has an end."""
    client = server.connect(authority.client()).shake()
    client.send(data)
    assert client.receive().startswith(b"HTTP/1.1 400 ")
    client.send(b"more" * 1000)
    server.wait(4.5)
    assert not client.transport.lost
    server.wait(1)
    assert client.transport.lost
    assert not server.channels.channels


def test_an_idle_client_that_does_not_say_good_bye(server: Server, authority: Authority) -> None:
    """It is not waited for longer than for one that stalls."""
    client = server.connect(authority.client()).shake()
    client.send(GET)
    server.wait(75.2)
    client.receive()
    assert client.ended
    server.wait(30.2)
    assert client.transport.lost


def test_a_client_that_vanishes(pairs: list[Pair], authority: Authority) -> None:
    """The application is told, once."""
    server = Server(ServerContexts(keys(pairs)), application=Hold)
    client = server.connect(authority.client()).shake()
    client.send(GET)
    client.transport.disconnect()
    assert isinstance(server.seen[0].error, ClientLost)
    assert not server.channels.channels
