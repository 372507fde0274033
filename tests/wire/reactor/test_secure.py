"""TLS between a transport and a protocol, in memory, against the TLS of Python's standard library."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from support.certificates import Authority
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from apigw import is_compiled
from apigw.wire.client_tls import ClientTLS
from apigw.wire.reactor.secure import CLOSING, HANDSHAKE, MOST_SILENT, OPEN, OVER, STATES, Secure
from apigw.wire.reactor.tls_records import Records
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory


class Reactor:
    """What a transport knows of turns. None: there are none."""

    writes_of_turn: list[Any] | None = None


class Below:
    """The transport: what it is given, until somebody takes it."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.protocol: Any = None
        self.written = b""
        self.writes = 0
        self.closing = False
        self.aborted = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        assert not self.aborted
        self.written += data
        self.writes += 1

    def loseConnection(self) -> None:
        self.closing = True

    def abortConnection(self) -> None:
        self.aborted = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None


@implementer(IHandshakeListener)
class Above:
    """The protocol: what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received: list[bytes] = []
        self.lost: Failure | None = None
        self.on_data: Callable[[bytes], object] = lambda data: None
        self.on_handshake: Callable[[], object] = lambda: None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def handshakeCompleted(self) -> None:
        self.on_handshake()

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        self.on_data(data)

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason


class Scene:
    """A server of ours, and a client of the standard library."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        pair = authority.issue("good.test")
        self.above, self.below = Above(), Below()
        contexts = ServerContexts([KeyPair(pair.certificate, pair.key)])

        class Factory:
            def buildProtocol(_, addr: object) -> Above:
                return self.above

        self.layer: Secure = TLSFactory(contexts, Factory()).buildProtocol(None)
        context = ssl.create_default_context(cafile=authority.file)
        context.maximum_version = version
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._incoming, self._outgoing, server_hostname="good.test")
        self.layer.makeConnection(self.below)

    def shake(self) -> None:
        """The handshake, but for the last bytes of the client, which wait."""
        while True:
            try:
                self.client.do_handshake()
                return
            except ssl.SSLWantReadError:
                self.deliver(self.sent())
                self.flush()

    def sent(self) -> bytes:
        """What the client sends."""
        return self._outgoing.read()

    def deliver(self, data: bytes) -> None:
        if data:
            self.layer.dataReceived(data)

    def flush(self) -> None:
        """Hand what the server has written to the client."""
        data, self.below.written = self.below.written, b""
        self._incoming.write(data)

    def ready(self) -> Scene:
        self.shake()
        self.deliver(self.sent())
        self.flush()
        return self

    def read(self) -> bytes:
        """What the client understands."""
        self.flush()
        came = b""
        while True:
            try:
                data = self.client.read(65536)
            except ssl.SSLWantReadError:
                return came
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                return came + b"<close_notify>"
            came += data


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@given(st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(1, 12), max_size=30))
def test_records_are_counted_wherever_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    """A piece completes as many records as end in it."""
    stream = b"".join(b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size) for size in sizes)
    ends = [sum(size + 5 for size in sizes[: number + 1]) for number in range(len(sizes))]
    records, at = Records(), 0
    for cut in [*cuts, len(stream)]:
        piece = stream[at : at + cut]
        if piece:
            assert records.completed(piece) == sum(at < end <= at + len(piece) for end in ends)
        at += len(piece)


@VERSIONS
def test_what_comes_in_one_read_is_delivered_at_once(authority: Authority, version: ssl.TLSVersion) -> None:
    """Several records are one piece of data for the protocol, so that it does its work once."""
    scene = Scene(authority, version).ready()
    for word in (b"one ", b"two ", b"three"):
        scene.client.write(word)
    scene.deliver(scene.sent())
    assert scene.above.received == [b"one two three"]


@VERSIONS
def test_a_record_may_come_byte_by_byte(authority: Authority, version: ssl.TLSVersion) -> None:
    """It is delivered with its last byte."""
    scene = Scene(authority, version).ready()
    scene.client.write(b"hello")
    record = scene.sent()
    for number in range(len(record)):
        assert scene.above.received == []
        scene.deliver(record[number : number + 1])
    assert scene.above.received == [b"hello"]


def test_a_request_may_come_with_the_end_of_the_handshake(authority: Authority) -> None:
    """Nothing is left lying when a client sends at once, whole or in part."""
    scene = Scene(authority)
    scene.shake()
    scene.client.write(b"hello")
    last = scene.sent()
    scene.client.write(b"world")
    more = scene.sent()
    scene.deliver(last + more[:7])
    assert scene.above.received == [b"hello"]
    scene.deliver(more[7:])
    assert scene.above.received == [b"hello", b"world"]


@VERSIONS
def test_the_writes_of_a_turn_are_sent_together(authority: Authority, version: ssl.TLSVersion) -> None:
    """In one record, and in order with what is written between turns."""
    scene = Scene(authority, version).ready()
    scene.below.writes = 0
    turn: list[Any] = []
    scene.below.reactor.writes_of_turn = turn
    scene.above.transport.write(b"a")
    scene.above.transport.writeSequence([b"b", b"c"])
    assert (scene.below.writes, scene.layer.held()) == (0, 3)
    scene.below.reactor.writes_of_turn = None
    for holder in turn:
        holder.send_held()
    assert scene.below.writes == 1
    scene.above.transport.write(b"d")
    assert scene.below.writes == 2
    assert scene.read() == b"abcd"


@VERSIONS
def test_a_large_answer_arrives_whole(authority: Authority, version: ssl.TLSVersion) -> None:
    """It takes several records."""
    scene = Scene(authority, version).ready()
    body = bytes(range(256)) * 1000
    scene.above.transport.write(body)
    assert scene.read() == body


@VERSIONS
def test_close_notify_is_answered(authority: Authority, version: ssl.TLSVersion) -> None:
    """A client that says that it closes is told so too, after what was written, and the end was a clean one."""
    scene = Scene(authority, version).ready()
    scene.above.on_data = scene.above.transport.write
    scene.client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        scene.client.unwrap()
    scene.deliver(scene.sent())
    assert scene.read() == b"last<close_notify>"
    assert scene.below.closing
    scene.layer.connectionLost(connectionDone)
    assert scene.above.lost is not None and scene.above.lost.check(ConnectionDone)


def test_the_end_is_clean_if_the_other_side_does_not_stay_for_ours(authority: Authority) -> None:
    """It has said that it closes, and resets when it gets our close_notify: a body that ends so is whole."""
    scene = Scene(authority).ready()
    with pytest.raises(ssl.SSLWantReadError):
        scene.client.unwrap()
    scene.deliver(scene.sent())
    scene.layer.connectionLost(Failure(CONNECTION_LOST))
    assert scene.above.lost is not None and scene.above.lost.check(ConnectionDone)


def test_an_end_without_close_notify_is_no_clean_one(authority: Authority) -> None:
    """Whoever cuts a connection must not make a body look complete."""
    scene = Scene(authority).ready()
    scene.layer.connectionLost(connectionDone)
    assert scene.above.lost is not None and scene.above.lost.check(ConnectionLost)


@VERSIONS
def test_closing_waits_for_the_other_side(authority: Authority, version: ssl.TLSVersion) -> None:
    """close_notify follows what was written. What still comes is read until the client says the same."""
    scene = Scene(authority, version).ready()
    turn: list[Any] = []
    scene.below.reactor.writes_of_turn = turn
    scene.above.transport.write(b"bye")
    scene.above.transport.loseConnection()
    scene.above.transport.write(b"too late")
    scene.client.write(b"more")
    more = scene.sent()
    assert scene.read() == b"bye<close_notify>"
    scene.deliver(more)
    assert scene.above.received == [b"more"]
    assert not scene.below.closing
    scene.client.unwrap()
    scene.deliver(scene.sent())
    assert scene.below.closing


def test_a_producer_may_write_until_it_is_unregistered(authority: Authority) -> None:
    """As over TCP: only then the connection is closed."""
    scene = Scene(authority).ready()
    scene.above.transport.registerProducer(object(), True)
    scene.above.transport.loseConnection()
    scene.above.transport.write(b"the rest")
    assert scene.read() == b"the rest"
    scene.above.transport.unregisterProducer()
    assert scene.read() == b"<close_notify>"


@VERSIONS
@pytest.mark.parametrize("politely", [True, False])
def test_a_producer_keeps_no_connection_that_the_client_has_ended(
    authority: Authority, version: ssl.TLSVersion, politely: bool
) -> None:
    """By close_notify or by a fault: nothing more can be sent, so a paused producer is not waited for."""
    scene = Scene(authority, version).ready()
    scene.above.transport.registerProducer(object(), True)
    if politely:
        with pytest.raises(ssl.SSLWantReadError):
            scene.client.unwrap()
        scene.deliver(scene.sent())
    else:
        scene.deliver(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert scene.below.closing
    assert scene.below.producer is None
    scene.above.transport.unregisterProducer()


def test_closing_before_the_handshake_cuts(authority: Authority) -> None:
    """There is nobody to say goodbye to."""
    scene = Scene(authority)
    scene.above.transport.loseConnection()
    assert scene.below.aborted
    scene.deliver(b"\x16\x03\x01")
    assert scene.above.received == []


@VERSIONS
def test_a_broken_record_ends_the_connection(authority: Authority, version: ssl.TLSVersion) -> None:
    """The client gets an alert, and the protocol OpenSSL's reason; what came before is delivered."""
    scene = Scene(authority, version).ready()
    scene.client.write(b"good")
    scene.client.write(b"bad")
    data = bytearray(scene.sent())
    data[-1] ^= 1
    scene.deliver(bytes(data))
    assert scene.above.received == [b"good"]
    assert scene.below.closing
    with pytest.raises(ssl.SSLError):
        scene.read()
    scene.layer.connectionLost(connectionDone)
    assert scene.above.lost is not None and scene.above.lost.check(SSL.Error)


class Talk:
    """An ``Encryption`` whose other side changes its keys with each record that is not ``text``."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.answers = 0

    def do_handshake(self) -> None: ...

    def put(self, data: bytes) -> None:
        self.came.append(data)

    def taken(self) -> list[bytes]:
        return []

    def text(self) -> bytes:
        record = self.came.pop(0)
        if record[5:] == b"text":
            return b"text"
        self.answers += 1
        raise SSL.WantReadError


@pytest.mark.skipif(is_compiled(), reason="what is compiled knows an actor from the real part")
def test_keys_are_not_changed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change has an answer, which a client need not read: they must not pile up."""
    above, below = Above(), Below()
    talk: Any = Talk()
    monkeypatch.setattr("apigw.wire.reactor.secure.Encryption", lambda connection: connection)
    layer = Secure(above, lambda layer: talk, is_client=True)
    layer.makeConnection(below)
    text, change = b"\x17\x03\x03\x00\x04text", b"\x17\x03\x03\x00\x04keys"
    for _ in range(5 * MOST_SILENT):
        layer.dataReceived(change)
        layer.dataReceived(text)
    assert len(above.received) == 5 * MOST_SILENT
    for _ in range(MOST_SILENT):
        assert not below.aborted
        layer.dataReceived(change)
    layer.dataReceived(text)
    assert not below.aborted
    layer.dataReceived(change)
    layer.dataReceived(change)
    assert below.aborted
    layer.connectionLost(connectionDone)
    assert above.lost is not None and above.lost.check(ConnectionLost)


def test_nonsense_ends_a_handshake(authority: Authority) -> None:
    """What is no TLS is refused with OpenSSL's reason."""
    scene = Scene(authority)
    scene.deliver(b"GET / HTTP/1.1\r\n\r\n")
    assert scene.below.closing
    scene.layer.connectionLost(connectionDone)
    assert scene.above.lost is not None and scene.above.lost.check(SSL.Error)


def test_an_abort_sends_and_delivers_nothing_more(authority: Authority) -> None:
    """Also in the middle of what was read together."""
    scene = Scene(authority).ready()
    scene.above.on_data = lambda data: scene.above.transport.abortConnection()
    scene.client.write(b"hello")
    scene.deliver(scene.sent())
    scene.above.transport.write(b"ignored")
    assert scene.below.aborted and scene.below.written == b""


@VERSIONS
def test_an_abort_at_the_end_of_the_handshake_delivers_nothing(authority: Authority, version: ssl.TLSVersion) -> None:
    """Also what came together with its last bytes."""
    scene = Scene(authority, version)
    scene.above.on_handshake = lambda: scene.above.transport.abortConnection()
    scene.shake()
    if version == ssl.TLSVersion.TLSv1_3:
        scene.client.write(b"hello")
        scene.deliver(scene.sent())
    assert scene.below.aborted
    assert scene.above.received == []
    assert scene.layer._state == OVER


@VERSIONS
def test_closing_at_the_end_of_the_handshake(authority: Authority, version: ssl.TLSVersion) -> None:
    """What was written in it comes first, then one close_notify."""
    scene = Scene(authority, version)

    def close() -> None:
        scene.above.transport.write(b"bye")
        scene.above.transport.loseConnection()

    scene.above.on_handshake = close
    scene.ready()
    assert scene.read() == b"bye<close_notify>"
    assert not scene.below.closing


@VERSIONS
def test_a_client_writes_before_its_handshake_is_done(authority: Authority, version: ssl.TLSVersion) -> None:
    """It is sent as soon as the server is known, and closing waits for that too."""
    pair = authority.issue("good.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    above, below = Above(), Below()

    def connect(layer: Any) -> SSL.Connection:
        connection: SSL.Connection = ClientTLS(authority.file).to("good.test").clientConnectionForTLS(layer)
        connection.set_connect_state()
        return connection

    layer = Secure(above, connect, is_client=True)
    layer.makeConnection(below)
    above.transport.write(b"early")
    above.transport.loseConnection()
    assert layer.held() == 5
    for _ in range(3):
        data, below.written = below.written, b""
        incoming.write(data)
        try:
            server.do_handshake()
            break
        except ssl.SSLWantReadError:
            layer.dataReceived(outgoing.read())
    if outgoing.pending:
        layer.dataReceived(outgoing.read())
        incoming.write(below.written)
    assert server.read(100) == b"early"
    assert server.read(100) == b""  # close_notify


def test_every_state_has_its_transitions() -> None:
    """OVER is the end."""
    assert set(STATES) == {HANDSHAKE, OPEN, CLOSING, OVER}
    assert STATES[OVER] == set()
