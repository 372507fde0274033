"""The agent for a program's own calls: with treq on top, against a real server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import define, field
from support.awaiting import eventually
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IClientRequest, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from apigw.wire.agent import MOST_POOLS, Agent
from apigw.wire.agent_response import KEPT_BODY
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, UpstreamLost, UpstreamMalformed, UpstreamTimedOut
from apigw.wire.pool import PoolSettings

reactor: Any = global_reactor
Behaviour = Callable[[Any], Any]


def report(request: Any) -> bytes:
    """Twisted's own server, saying what it understood."""
    request.setHeader("content-type", "application/json")
    fields = sorted(
        (name.decode().lower(), value.decode()) for name, [value] in request.requestHeaders.getAllRawHeaders()
    )
    body = request.content.read().decode("latin-1")
    return treq_json({"method": request.method.decode(), "uri": request.uri.decode(), "fields": fields, "body": body})


def treq_json(document: Any) -> bytes:
    import json

    return json.dumps(document).encode()


class Root(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.behave: Behaviour = report

    def render(self, request: Any) -> Any:
        return self.behave(request)


class CountingSite(Site):
    connections = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.connections += 1
        return super().buildProtocol(addr)


@define
class Server:
    root: Root
    site: CountingSite
    port: IListeningPort
    deadlines: Deadlines
    agents: list[Agent] = field(factory=list)

    @property
    def base(self) -> str:
        host: Any = self.port.getHost()
        return f"http://127.0.0.1:{host.port}"

    def agent(self, timeout: float = 10.0, **settings: Any) -> Agent:
        agent = Agent(reactor, self.deadlines, no_tls, PoolSettings(**settings), timeout)
        self.agents.append(agent)
        return agent

    def client(self, **settings: Any) -> HTTPClient:
        return HTTPClient(self.agent(**settings))


def no_tls(host: str) -> Any:
    raise ValueError(f"no TLS to {host}")


@pytest_twisted.async_yield_fixture
async def server() -> AsyncIterator[Server]:
    root = Root()
    site = CountingSite(root)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
    deadlines = Deadlines(reactor)
    deadlines.start()
    server = Server(root, site, port, deadlines)
    yield server
    for agent in server.agents:
        agent.close()
    deadlines.stop()
    await port.stopListening()
    await site_is_quiet()


async def site_is_quiet() -> None:
    for _ in range(20):
        await deferLater(reactor, 0)


@pytest_twisted.ensureDeferred
async def test_it_is_an_IAgent(server: Server) -> None:
    """Whatever may be asked of an ``IAgent`` and of its answer may be asked of ours."""
    agent = server.agent()
    verifyObject(IAgent, agent)
    uri = server.base.encode() + b"/a?b"
    response: Any = await agent.request(b"GET", uri, Headers({b"X-A": [b"1"]}))
    verifyObject(IResponse, response)
    verifyObject(IClientRequest, response.request)
    assert (response.code, response.phrase, response.version) == (200, b"OK", (b"HTTP", 1, 1))
    assert (response.request.absoluteURI, response.request.method) == (uri, b"GET")
    assert response.request.headers.getRawHeaders(b"x-a") == [b"1"]
    assert response.length == len(await treq.content(response))
    with pytest.raises(RuntimeError):
        response.deliverBody(Protocol())


@pytest_twisted.ensureDeferred
async def test_get(server: Server) -> None:
    """treq's GET reaches the server as it was meant, and its answer comes back."""
    response = await server.client().get(server.base + "/a/b", params={"c": "d e"}, headers=Headers({"X-A": ["1"]}))
    document = await response.json()
    host = server.base.removeprefix("http://")
    assert (document["method"], document["uri"]) == ("GET", "/a/b?c=d+e")
    assert document["fields"] == [["accept-encoding", "gzip"], ["host", host], ["x-a", "1"]]


@pytest_twisted.ensureDeferred
async def test_post(server: Server) -> None:
    """JSON, forms, plain bytes, and nothing."""
    client = server.client()
    document = await (await client.post(server.base, json={"a": 1})).json()
    assert document["body"] == '{"a":1}'
    assert ["content-length", "7"] in document["fields"]
    document = await (await client.post(server.base, data={"a": "b c"})).json()
    assert document["body"] == "a=b+c"
    document = await (await client.put(server.base, data=b"\xff" * 1_000_000)).json()
    assert document["body"] == "\xff" * 1_000_000
    document = await (await client.post(server.base)).json()
    assert ["content-length", "0"] in document["fields"]


@implementer(IBodyProducer)
class Pieces:
    """A body of unknown length, written when the test says so."""

    length = UNKNOWN_LENGTH

    def __init__(self) -> None:
        self.consumer: Any = None
        self.calls: list[str] = []
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@pytest_twisted.ensureDeferred
async def test_a_body_of_unknown_length(server: Server) -> None:
    """It is chunked, and may take its time."""
    pieces = Pieces()
    asked = server.agent().request(b"PUT", server.base.encode(), None, pieces)
    await eventually(lambda: pieces.consumer)
    for piece in (b"one", b"", b"two"):
        pieces.consumer.write(piece)
    pieces.done.callback(None)
    document = await treq.json_content(await asked)
    assert document["body"] == "onetwo"
    assert ["transfer-encoding", "chunked"] in document["fields"]


@pytest_twisted.ensureDeferred
async def test_a_body_that_fails(server: Server) -> None:
    """The server never sees a request that looks whole, and the caller learns what failed."""
    asked: list[object] = []
    server.root.behave = lambda request: asked.append(request) or b""
    pieces = Pieces()
    answer = server.agent().request(b"PUT", server.base.encode(), None, pieces)
    await eventually(lambda: pieces.consumer)
    pieces.consumer.write(b"half")
    pieces.done.errback(Failure(OSError("the disk is gone")))
    with pytest.raises(OSError):
        await answer
    await site_is_quiet()
    assert asked == []


@pytest_twisted.ensureDeferred
async def test_headers_belong_to_the_caller_and_framing_to_us(server: Server) -> None:
    """A caller cannot frame a body in two ways, nor smuggle a line into a header or the request line."""
    agent = server.agent()
    fields = Headers(
        {"Content-Length": ["99"], "Transfer-Encoding": ["gzip"], "Connection": ["close"], "Host": ["other"]}
    )
    document = await treq.json_content(await agent.request(b"POST", server.base.encode(), fields))
    assert document["fields"] == [["content-length", "0"], ["host", "other"]]
    for method, uri in [
        (b"GET /x", b"/"),
        (b"GET\r\n", b"/"),
        (b"GET", b"/ HTTP/1.1\r\nX: y"),
        (b"GET", b"/\x7f"),
        (b"", b"/"),
    ]:
        with pytest.raises(ValueError):
            await agent.request(method, server.base.encode() + uri)
    for uri in (b"ftp://127.0.0.1/", b"/", b"https://127.0.0.1/"):
        with pytest.raises(Exception):  # noqa: B017
            await agent.request(b"GET", uri)


@pytest_twisted.ensureDeferred
async def test_connections_are_used_again(server: Server) -> None:
    """Also after HEAD, errors, and answers that nobody read."""
    agent = server.agent()
    client = HTTPClient(agent)

    def behave(request: Any) -> bytes:
        request.setResponseCode(204 if request.uri == b"/204" else 404 if request.uri == b"/404" else 200)
        return b"" if request.uri == b"/204" else b"page"

    server.root.behave = behave
    for method, path in [("GET", "/"), ("HEAD", "/"), ("GET", "/404"), ("GET", "/204"), ("POST", "/"), ("GET", "/")]:
        response = await client.request(method, server.base + path)
        assert await response.content() == (b"page" if method != "HEAD" and path != "/204" else b"")
        await deferLater(reactor, 0)  # without a body treq does not wait for the answer's end
        unread: Any = await agent.request(b"GET", server.base.encode())
        await eventually(partial(getattr, unread, "_reason"))
    assert server.site.connections == 1


@pytest_twisted.ensureDeferred
async def test_an_answer_that_stalls(server: Server) -> None:
    """The same, in the middle of a body: it does not look complete."""

    def behave(request: Any) -> int:
        request.write(b"half")
        return NOT_DONE_YET

    server.root.behave = behave
    response = await server.agent(timeout=0.1).request(b"GET", server.base.encode())
    with pytest.raises(ResponseFailed) as failed:
        await treq.content(response)
    assert failed.value.reasons[0].check(UpstreamTimedOut)


@pytest_twisted.ensureDeferred
async def test_who_asks_may_wait_for_long(server: Server) -> None:
    """An agent without a timeout leaves it to who asks, such as an external check with `timeout: 1m`."""
    held: list[Any] = []
    server.root.behave = lambda request: held.append(request) or NOT_DONE_YET
    clock: Any = Clock()
    deadlines = Deadlines(clock)
    agent = Agent(reactor, deadlines, no_tls)
    server.agents.append(agent)
    asked = agent.request(b"GET", server.base.encode())
    await eventually(lambda: held)
    clock.advance(3600.0)
    deadlines.check()
    held[0].finish()
    assert (await asked).code == 200


@pytest_twisted.ensureDeferred
async def test_cancelling(server: Server) -> None:
    """A caller that gives up takes the connection along: the answer that comes late is nobody's."""
    requests: list[Any] = []
    lost: list[object] = []

    def behave(request: Any) -> int:
        requests.append(request)
        request.notifyFinish().addErrback(lost.append)
        return NOT_DONE_YET

    server.root.behave = behave
    agent = server.agent()
    pieces = Pieces()
    for body in (None, pieces):
        asked = agent.request(b"PUT", server.base.encode(), None, body)
        if body is None:
            await eventually(lambda: requests)
        else:
            await eventually(lambda: pieces.consumer)
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked
    await eventually(lambda: lost)
    assert pieces.calls == ["stop"]
    pieces.consumer.write(b"late")
    server.root.behave = report
    assert (await agent.request(b"GET", server.base.encode())).code == 200


@pytest_twisted.ensureDeferred
async def test_cancelling_before_there_is_a_connection(server: Server) -> None:
    """Also while it waits for its turn."""
    server.root.behave = lambda request: NOT_DONE_YET
    agent = server.agent(max_connections=1)
    first = agent.request(b"GET", server.base.encode())
    waiting = agent.request(b"GET", server.base.encode())
    for asked in (waiting, first):
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked


@pytest_twisted.ensureDeferred
async def test_nobody_listens(server: Server) -> None:
    """A refused connection fails at once."""
    spare = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server.site)
    port = spare.getHost().port
    await spare.stopListening()
    with pytest.raises(ConnectFailed):
        await server.agent().request(b"GET", b"http://127.0.0.1:%d/" % port)


class Reader(Protocol):
    def __init__(self) -> None:
        self.body = bytearray()
        self.ends: list[Failure] = []
        self.transport: Any
        self.on_data: Callable[[], None] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.body += data
        self.on_data()

    def connectionLost(self, reason: Any = None) -> None:
        self.ends.append(reason)


@pytest_twisted.ensureDeferred
async def test_a_stream(server: Server) -> None:
    """A long body arrives piece by piece, at the pace of its reader."""
    size = 30_000_000

    def behave(request: Any) -> int:
        class Producer:
            left = size

            def resumeProducing(self) -> None:
                request.write(b"x" * 100_000)
                self.left -= 100_000
                if not self.left:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None: ...

        request.registerProducer(Producer(), False)
        return NOT_DONE_YET

    server.root.behave = behave
    response: Any = await server.agent().request(b"GET", server.base.encode())
    for _ in range(50):
        await deferLater(reactor, 0.001)
    assert len(response._kept) <= KEPT_BODY * 4
    reader = Reader()
    response.deliverBody(reader)
    await eventually(lambda: len(reader.body) > 100_000)
    reader.transport.pauseProducing()
    await site_is_quiet()
    paused_at = len(reader.body)
    await site_is_quiet()
    assert len(reader.body) == paused_at < size
    reader.transport.resumeProducing()
    await eventually(lambda: reader.ends)
    assert len(reader.body) == size
    assert reader.ends[0].check(ResponseDone)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_has_had_enough(server: Server) -> None:
    """It is told the end, once, and the connection is not used again."""

    def behave(request: Any) -> int:
        request.write(b"x" * 1000)
        return NOT_DONE_YET

    server.root.behave = behave
    agent = server.agent()
    response: Any = await agent.request(b"GET", server.base.encode())
    reader = Reader()
    reader.on_data = lambda: reader.transport.loseConnection()
    response.deliverBody(reader)
    await eventually(lambda: reader.ends)
    reader.transport.loseConnection()
    assert [bool(end.check(ResponseFailed)) for end in reader.ends] == [True]
    server.root.behave = report
    assert (await agent.request(b"GET", server.base.encode())).code == 200
    assert server.site.connections == 2


@pytest_twisted.ensureDeferred
async def test_a_reader_that_is_late(server: Server) -> None:
    """By then the connection may serve another call, which it must not touch. Who gives up has not read all."""
    server.root.behave = lambda request: b"short"
    agent = server.agent()
    first: Any = await agent.request(b"GET", server.base.encode())
    await eventually(lambda: first._reason is not None)
    requests: list[Any] = []

    def behave(request: Any) -> int:
        requests.append(request)
        return NOT_DONE_YET

    server.root.behave = behave
    asked = agent.request(b"GET", server.base.encode())
    await eventually(lambda: requests)
    reader = Reader()

    def interfere() -> None:
        reader.transport.pauseProducing()
        reader.transport.loseConnection()

    reader.on_data = interfere
    first.deliverBody(reader)
    assert reader.body == b"short"
    assert [bool(end.check(ResponseFailed)) for end in reader.ends] == [True]
    requests[0].write(b"second")
    requests[0].finish()
    assert await treq.content(await asked) == b"second"
    assert server.site.connections == 1


# A server that is no server.


class Liar(Protocol):
    """Says what it is told to, whatever is asked."""

    answers: list[bytes | None]

    def dataReceived(self, data: bytes) -> None:
        answer = self.answers.pop(0)
        assert self.transport is not None
        if answer is None:
            self.transport.loseConnection()
        else:
            self.transport.write(answer)


@pytest_twisted.async_yield_fixture
async def liar(server: Server) -> AsyncIterator[tuple[type[Liar], bytes]]:
    from twisted.internet.protocol import Factory

    class Ours(Liar):
        answers: list[bytes | None] = []  # noqa: RUF012

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Ours))
    yield Ours, b"http://127.0.0.1:%d/" % port.getHost().port
    await port.stopListening()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest_twisted.ensureDeferred
async def test_a_malformed_answer(server: Server, liar: tuple[type[Liar], bytes]) -> None:
    """What is no answer fails, and the connection goes."""
    liar[0].answers = [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", OK]
    agent = server.agent(timeout=0.2)
    with pytest.raises(UpstreamMalformed):
        await agent.request(b"GET", liar[1])
    with pytest.raises(ResponseFailed):
        await treq.content(await agent.request(b"GET", liar[1]))
    assert await treq.content(await agent.request(b"GET", liar[1])) == b"ok"


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_that_dies(server: Server, liar: tuple[type[Liar], bytes]) -> None:
    """What can be asked again is asked again on a fresh connection, once; what cannot is not."""
    agent = server.agent()
    liar[0].answers = [OK, None, OK, None]
    assert await treq.content(await agent.request(b"GET", liar[1])) == b"ok"
    assert await treq.content(await agent.request(b"GET", liar[1])) == b"ok"
    with pytest.raises(UpstreamLost):
        await agent.request(b"POST", liar[1])
    liar[0].answers = [None]
    with pytest.raises(UpstreamLost):
        await agent.request(b"GET", liar[1])


@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_end_of_the_body(server: Server, liar: tuple[type[Liar], bytes]) -> None:
    """It is an answer. The body is stopped, as nobody reads it any more."""
    liar[0].answers = [OK.replace(b"200 OK", b"413 Large")]
    pieces = Pieces()
    asked = server.agent().request(b"PUT", liar[1], None, pieces)
    await eventually(lambda: pieces.consumer)
    pieces.consumer.write(b"half")
    response = await asked
    assert (response.code, await treq.content(response)) == (413, b"ok")
    assert pieces.calls == ["stop"]
    pieces.consumer.write(b"late")
    pieces.done.callback(None)


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_read(server: Server) -> None:
    """The body waits for it."""
    from twisted.internet.protocol import Factory

    class Deaf(Protocol):
        def connectionMade(self) -> None:
            transport: Any = self.transport
            transport.pauseProducing()

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Deaf))
    pieces = Pieces()
    asked = server.agent(timeout=0.5).request(b"PUT", b"http://127.0.0.1:%d/" % port.getHost().port, None, pieces)
    await eventually(lambda: pieces.consumer)
    written = 0
    while "pause" not in pieces.calls:
        pieces.consumer.write(b"x" * 100_000)
        written += 1
        assert written < 1000
    with pytest.raises(UpstreamTimedOut):
        await asked
    assert pieces.calls == ["pause", "stop"]
    await port.stopListening()


def test_closing_twice() -> None:
    """An agent that was never used can be closed too."""
    deadlines = Deadlines(reactor)
    agent = Agent(reactor, deadlines, no_tls)
    agent.close()
    agent.close()
    assert succeed(None).result is None


async def test_calls_to_many_addresses_leave_little(server: Server) -> None:
    """Pools without a connection are forgotten when there are many; one with a call in progress is not."""
    held: list[Any] = []
    server.root.behave = lambda request: held.append(request) or NOT_DONE_YET
    agent = Agent(reactor, server.deadlines, no_tls)
    server.agents.append(agent)
    calling = agent.request(b"GET", f"{server.base}/held".encode())
    await eventually(lambda: held)
    for number in range(2 * MOST_POOLS):
        await agent.request(b"GET", b"http://127.0.%d.%d:1/" % divmod(number, 250)).addErrback(lambda _: None)
    assert len(agent._pools) <= MOST_POOLS + 1
    held[0].finish()
    assert (await calling).code == 200
