"""TCP on loopback: what is written arrives, in order, whole, and at the pace of the reader."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from attrs import define
from support.certificates import Authority
from support.logged import logged
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure

from apigw.wire.agent import endpoint_to
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.client_tls import ClientTLS
from apigw.wire.deadlines import Deadlines
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.pool import Pool, PoolSettings
from apigw.wire.reactor import epoll as own
from apigw.wire.reactor.connecting import ConnectingReactor
from apigw.wire.reactor.layers import beneath_tls, unsent
from apigw.wire.reactor.ports import serve
from apigw.wire.reactor.sending import MOST_HELD
from apigw.wire.reactor.socket_transport import LEAST_READ, LONG, MOST_READ, READ_SIZE, SocketTransport
from apigw.wire.request import Request
from apigw.wire.tls import KeyPair, ServerContexts, TLSFactory

PATIENCE = 20.0


@define
class Turns:
    """A reactor that the test turns by hand."""

    reactor: Any

    def until(self, done: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, "nothing happens"
            self.reactor.iterate(0.01)

    def turn(self) -> None:
        self.reactor.iterate(0)


@pytest.fixture(params=["Twisted's reactor", "our own"])
def turns(request: pytest.FixtureRequest) -> Iterator[Turns]:
    reactor: Any = EPollReactor() if request.param == "Twisted's reactor" else own._make()
    reactor.startRunning(installSignalHandlers=False)
    turns = Turns(reactor)
    yield turns
    reactor.removeAll()
    for _ in range(3):
        turns.turn()
    reactor._poller.close()


def served_by(turns: Turns, factory: Any, family: int = socket.AF_INET) -> Any:
    """The port of a factory, which listens on loopback."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.create_server((host, 0), family=family) as listening:
        return serve(turns.reactor, listening, factory)


class Peer(Protocol):
    """Answers each piece with ``answers``."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.answers: list[bytes] = []
        self.lost: Failure | None = None
        self.on_data: Callable[[], None] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for answer in self.answers:
            self.transport.write(answer)
        self.on_data()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason


class Producer:
    paused = 0
    resumed = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None: ...


@pytest.fixture
def pair(turns: Turns) -> Iterator[tuple[Peer, socket.socket]]:
    """A server's end, and a plain socket as its client."""
    accepted: list[Peer] = []
    factory = Factory()

    def build(addr: object) -> Peer:
        accepted.append(Peer())
        return accepted[-1]

    factory.buildProtocol = build  # type: ignore[method-assign]
    port = served_by(turns, factory)
    client = socket.create_connection(("127.0.0.1", port.getHost().port))
    turns.until(lambda: accepted and accepted[0].transport)
    assert isinstance(accepted[0].transport, SocketTransport)
    client.settimeout(PATIENCE)
    yield accepted[0], client
    client.close()
    turns.until(lambda: accepted[0].lost)
    port.stopListening()


def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def test_what_is_written_outside_of_a_turn_is_sent_at_once(pair: tuple[Peer, socket.socket]) -> None:
    """A small answer does not wait for the reactor."""
    peer, client = pair
    peer.transport.write(b"one ")
    peer.transport.writeSequence([b"two ", b"three"])
    assert read(client, 13) == b"one two three"


@pytest.mark.parametrize("count", [1, 2, MOST_HELD, MOST_HELD + 1, MOST_HELD * 3 + 1])
def test_what_is_written_in_a_turn_is_sent_in_that_turn(
    turns: Turns, pair: tuple[Peer, socket.socket], count: int
) -> None:
    """However many pieces an answer has, all of it is on its way when the turn is over, in order."""
    peer, client = pair
    peer.answers = [b"%05d" % number for number in range(count)]
    client.sendall(b"?")
    turns.until(lambda: peer.received)
    assert read(client, 5 * count) == b"".join(peer.answers)


def test_more_than_the_kernel_takes(turns: Turns, pair: tuple[Peer, socket.socket]) -> None:
    """A large download arrives whole and in order, however it was written."""
    peer, client = pair
    client.setblocking(False)
    sent = received = b""
    for number in range(40):
        for size in (1, 500_000, 3):
            piece = bytes([number]) * size
            peer.transport.write(piece)
            sent += piece
    assert unsent(peer.transport) > 0

    def arrived() -> bool:
        nonlocal received
        try:
            received += client.recv(2**20)
        except BlockingIOError:
            return False
        return len(received) >= len(sent)

    turns.until(arrived)
    assert received == sent
    turns.until(lambda: unsent(peer.transport) == 0)


@pytest.mark.parametrize("in_a_turn", [True, False])
def test_a_producer_is_told_when_the_client_does_not_read(
    turns: Turns, pair: tuple[Peer, socket.socket], in_a_turn: bool
) -> None:
    """What a stalled client does not take is not piled up."""
    peer, client = pair
    producer = Producer()
    peer.transport.registerProducer(producer, True)
    written = 0

    def write() -> None:
        nonlocal written
        while not producer.paused and written < 2**30:
            peer.transport.write(b"x" * 65536)
            written += 65536

    if in_a_turn:
        peer.on_data = write
        client.sendall(b"?")
        turns.until(lambda: peer.received)
        turns.turn()
    else:
        write()
    assert producer.paused == 1
    queued = peer.transport.queued + peer.transport.held()
    assert queued <= 65536 * (MOST_HELD + 2)
    assert unsent(peer.transport) >= queued
    client.settimeout(0.01)

    def resumed() -> bool:
        with contextlib.suppress(TimeoutError):
            client.recv(2**20)
        return producer.resumed == 1

    turns.until(resumed)
    peer.transport.unregisterProducer()
    peer.transport.abortConnection()


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", [5, 20_000_000])
def test_what_was_written_before_the_end_arrives(
    turns: Turns, pair: tuple[Peer, socket.socket], size: int, half: bool
) -> None:
    """Closing behind an answer, in the turn in which it was written, loses nothing of it."""
    peer, client = pair
    received = b""

    def finish() -> None:
        peer.transport.write(b"x" * size)
        if half:
            peer.transport.loseWriteConnection()
        else:
            peer.transport.loseConnection()

    def ended() -> bool:
        nonlocal received
        try:
            piece = client.recv(2**20)
        except TimeoutError:
            return False
        received += piece
        return not piece

    peer.on_data = finish
    client.sendall(b"?")
    client.settimeout(0.01)
    turns.until(ended)
    assert received == b"x" * size
    if half:
        assert peer.lost is None
        client.close()
    turns.until(lambda: peer.lost)
    assert peer.lost is not None
    assert peer.lost.check(ConnectionDone)


def test_what_was_written_before_an_abort_does_not_arrive(turns: Turns, pair: tuple[Peer, socket.socket]) -> None:
    """An exchange that is given up in the turn in which it began has not begun for the other side."""
    peer, client = pair
    peer.answers = [b"half"]
    peer.on_data = lambda: peer.transport.abortConnection()
    client.sendall(b"?")
    turns.until(lambda: peer.lost)
    assert peer.lost is not None
    assert peer.lost.check(ConnectionAborted)
    if turns.reactor.__class__.__name__ == "DirectEPollReactor":
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    peer.transport.write(b"late")  # is nobody's business any more


def test_the_end_of_the_other_side(turns: Turns, pair: tuple[Peer, socket.socket]) -> None:
    """A client that closes is gone, with everything read that it had sent."""
    peer, client = pair
    client.sendall(b"bye")
    client.close()
    turns.until(lambda: peer.lost)
    assert peer.received == b"bye"


def test_writes_to_a_service_are_sent_at_once_too(turns: Turns) -> None:
    """Towards services the same holds."""
    made: list[Peer] = []
    factory = ClientFactory()

    def build(addr: object) -> Peer:
        made.append(Peer())
        return made[-1]

    factory.buildProtocol = build  # type: ignore[method-assign]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ConnectingReactor(turns.reactor).connectTCP("127.0.0.1", listening.getsockname()[1], factory)
        turns.until(lambda: made and made[0].transport)
        accepted, _ = listening.accept()
        with accepted:
            assert isinstance(made[0].transport, SocketTransport)
            made[0].transport.write(b"hello")
            accepted.settimeout(PATIENCE)
            assert accepted.recv(10) == b"hello"
            accepted.sendall(b"world")
            turns.until(lambda: made[0].received == b"world")
        turns.until(lambda: made[0].lost)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


def served(turns: Turns, asked: Callable[[Request], object] = lambda request: None) -> ChannelFactory:
    """Answers every request, and so is made by nothing but what a listener gives it."""
    deadlines = Deadlines(turns.reactor)

    def answer(request: Request) -> None:
        asked(request)
        request.respond(200, [(b"content-length", b"2")], b"ok")

    return ChannelFactory(Settings(), deadlines, answer, lambda *refused: (400, [], b""), lambda: 0.0)


def over_tls(turns: Turns, authority: Authority, channels: ChannelFactory) -> TLSFactory:
    pair = authority.issue("localhost")
    return TLSFactory(ServerContexts([KeyPair(pair.certificate, pair.key)]), channels)


def ask(turns: Turns, client: socket.socket, tls: ssl.SSLContext | None = None) -> None:
    """One request, and its answer."""
    came: list[bytes] = []

    def get() -> None:
        over = client if tls is None else tls.wrap_socket(client, server_hostname="localhost")
        over.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came.append(over.recv(1000))
        over.close()

    client.settimeout(PATIENCE)
    thread = Thread(target=get)
    thread.start()
    turns.until(lambda: not thread.is_alive())
    assert came
    assert came[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "tls"])
def test_what_is_written_to_a_client_does_not_wait_for_its_acknowledgement(
    turns: Turns, authority: Authority, kind: str
) -> None:
    """The second piece of an answer is sent at once, whatever the port: Nagle's algorithm is off."""
    no_delay: list[bool] = []

    def note(request: Request) -> None:
        stream: Any = request.stream
        transport = beneath_tls(stream.transport)
        assert isinstance(transport, SocketTransport)
        no_delay.append(transport.getTcpNoDelay())

    channels = served(turns, note)
    factory: Any = channels
    tls = None
    if kind == "tls":
        tls = authority.client()
        factory = over_tls(turns, authority, channels)
    port = served_by(turns, factory, socket.AF_INET6 if kind == "tcp6" else socket.AF_INET)
    with socket.create_connection((port.getHost().host, port.getHost().port)) as client:
        ask(turns, client, tls)
    assert no_delay
    assert all(no_delay)
    turns.until(lambda: not channels.channels)
    port.stopListening()
    turns.turn()


class Busy(Protocol):
    """Takes ``cost`` seconds for each byte, as far as its reactor's clock knows."""

    def __init__(self, cost: float) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        self._cost = cost

    def seconds(self) -> float:
        return self.now

    def dataReceived(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self.now += self._cost * len(data)


@pytest.mark.parametrize(
    ("cost", "least", "most"),
    [(0.0, READ_SIZE + 1, MOST_READ), (LONG / 20_000, 20_000, 40_000), (1.0, LEAST_READ, LEAST_READ)],
    ids=["a large body", "many small pieces", "the smallest pieces"],
)
def test_whoever_sends_what_takes_long_is_read_in_smaller_pieces(
    turns: Turns, cost: float, least: int, most: int
) -> None:
    """Other connections are served meanwhile, and large bodies are still read in large pieces."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    busy = Busy(cost)
    with theirs:
        served = SocketTransport(ours.detach(), ("127.0.0.1", 1), turns.reactor)
        served.begin_late(busy)
        turns.reactor.seconds, before = busy.seconds, turns.reactor.seconds
        for _ in range(8):
            for _ in range(8):
                with contextlib.suppress(BlockingIOError):
                    theirs.send(bytes(MOST_READ))
            served.doRead()
        turns.reactor.seconds = before
        served.connectionLost(Failure(ConnectionDone()))
    assert busy.sizes[0] == READ_SIZE
    assert least <= max(busy.sizes[-2:]) <= most


def test_a_unix_socket_has_no_such_algorithm(turns: Turns, tmp_path: Path) -> None:
    """It is served as any other; nothing fails and is logged; its file is left to whoever made it, with its mode."""
    channels = served(turns)
    path = tmp_path / "a.sock"
    with contextlib.ExitStack() as stack, logged() as events:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        port = serve(turns.reactor, listening, channels)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(path))
        ask(turns, client)
        turns.until(lambda: not channels.channels)
        port.stopListening()
        turns.turn()
    assert not [event for event in events if event.get("isError") or event.get("log_failure")]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_written_to_a_service_does_not_wait_for_its_acknowledgement(
    turns: Turns, authority: Authority, secure: bool
) -> None:
    """A body that follows its head is sent at once, over every kind of connection that a pool makes."""
    channels = served(turns)
    factory: Any = over_tls(turns, authority, channels) if secure else channels
    port = served_by(turns, factory)
    tls = ClientTLS(authority.file).to("localhost") if secure else None
    endpoint = endpoint_to(turns.reactor, "127.0.0.1", port.getHost().port, PATIENCE, tls)
    given: list[Any] = []
    deadlines = Deadlines(turns.reactor)
    pool = Pool(endpoint, partial(HTTP1Connection, deadlines), PoolSettings(), deadlines)
    pool.connect().addCallback(given.append)
    turns.until(lambda: given)
    transport = beneath_tls(given[0].transport)
    assert isinstance(transport, SocketTransport)
    assert transport.getTcpNoDelay()
    transport.abortConnection()
    turns.until(lambda: not pool.connections and not channels.channels)
    port.stopListening()
    turns.turn()


def test_of_other_transports_nothing_is_known() -> None:
    """A transport that cannot tell what is unsent is taken to have sent everything."""
    assert unsent(object()) == 0
