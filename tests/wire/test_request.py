"""The request as ``twisted.web`` knows it: stock Resources do over our channel what they do over Twisted's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from hyperframe.frame import RstStreamFrame
from support import http2_client
from support.awaiting import eventually
from support.fake_transport import FakeTransport
from support.http1_server import PEER
from support.logged import failures, logged
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import Data, File
from twisted.web.util import DeferredResource
from zope.interface import implementer
from zope.interface.verify import verifyObject

from apigw.errors import render
from apigw.proxy.refusals import refused
from apigw.proxy.site import Site
from apigw.wire.channel import ChannelFactory, Settings
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest

pytestmark = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")


@define
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@define
class Web:
    """A server with one Resource, at ``/r``, and a client of it."""

    resource: IResource
    requests: list[Request] = field(factory=list)
    accounted: list[str] = field(factory=list)
    transport: FakeTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock = Clock()

        def account(request: Request, path: str, *_: object) -> None:
            self.accounted.append(path)

        site = Site(account, clock.seconds, lambda request: request.stream.peer)
        site.reserve({b"/r": self.resource})

        def on_request(request: Request) -> None:
            self.requests.append(request)
            site.on_request(request)

        def on_refused(refusal: Any, *_: object) -> Any:
            return render(refused(refusal), "")

        factory = ChannelFactory(Settings(), Deadlines(clock), on_request, on_refused, lambda: 0.0)
        protocol = factory.buildProtocol(PEER)
        assert protocol is not None
        self.transport = FakeTransport(clock).connect(protocol)

    @property
    def request(self) -> Request:
        return self.requests[-1]

    @property
    def rendered(self) -> WebRequest:
        """The last request as its ``Page`` saw it."""
        assert isinstance(self.resource, Page)
        return self.resource.rendered[-1]

    def send(
        self, method: bytes = b"GET", target: bytes = b"/r", *fields: bytes, body: bytes = b"", version: bytes = b"1.1"
    ) -> None:
        head = [b"%b %b HTTP/%b" % (method, target, version), b"Host: example.com:8080", *fields]
        if body:
            head.append(b"Content-Length: %d" % len(body))
        self.transport.deliver(b"\r\n".join((*head, b"", b"")) + body)

    def ask(self, *arguments: bytes, **more: bytes) -> Answer:
        self.send(*arguments, **more)
        return self.answer()

    def answer(self) -> Answer:
        head, _, body = self.transport.take().partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, _, value = line.partition(b": ")
            assert name == name.lower()
            headers[name] = headers[name] + b"|" + value if name in headers else value
        if headers.get(b"transfer-encoding") == b"chunked":
            body = unchunked(body)
        elif b"content-length" in headers and self.request.method != b"HEAD":
            assert len(body) == int(headers[b"content-length"])
        return Answer(int(first.split()[1]), headers, body)


def unchunked(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            assert data == b""
            return body


class Page(Resource):
    """Does as the test says."""

    isLeaf = True

    def __init__(self, render: Callable[[Any], Any]) -> None:
        super().__init__()
        self.rendered: list[WebRequest] = []

        def render_GET(request: WebRequest) -> Any:
            self.rendered.append(request)
            return render(request)

        self.render_GET = self.render_POST = render_GET


def page(render: Callable[[Any], Any]) -> Web:
    return Web(Page(render))


def test_it_is_an_IRequest() -> None:
    """Whatever may be asked of an ``IRequest`` may be asked of ours."""
    web = page(lambda request: NOT_DONE_YET)
    web.send(b"GET", b"/r?a=b")
    assert verifyObject(IRequest, web.rendered)
    request: Any = web.rendered
    assert (request.method, request.uri, request.path, request.clientproto) == (b"GET", b"/r?a=b", b"/r", b"HTTP/1.1")
    assert (request.prepath, request.postpath) == ([b"r"], [])
    assert request.getRequestHostname() == b"example.com"
    assert request.getClientAddress().host == request.client.host == "192.0.2.1"
    assert (request.getHost().port, request.isSecure()) == (80, False)
    assert request.prePathURL() == b"http://example.com/r"
    assert "uri=/r?a=b" in repr(request)
    request.setHost(b"other", 81)
    assert request.getHost().port == 81
    assert request.getComponent(IPushProducer) is None
    assert request.session is None


def test_headers() -> None:
    """Fields are found whatever their case, one by one and all at once."""

    def check(request: Any) -> bytes:
        assert request.getHeader(b"X-A") == b"2"
        assert request.getHeader("x-a") == "2"
        assert request.requestHeaders.getRawHeaders(b"x-a") == [b"1", b"2"]
        assert request.getHeader(b"missing") is None
        assert request.getAllHeaders()[b"x-a"] == b"2"
        assert request.getUser() == b"ada"
        assert request.getPassword() == b"secret"
        return b"ok"

    assert page(check).ask(b"GET", b"/r", b"x-a: 1", b"X-A: 2", b"Authorization: Basic YWRhOnNlY3JldA==").body == b"ok"


def test_cookies() -> None:
    """Cookies come in and go out."""

    def check(request: Any) -> bytes:
        assert request.received_cookies == {b"a": b"1", b"b": b"2=3", b"c": b""}
        assert request.getCookie(b"b") == b"2=3"
        assert request.getCookie(b"missing") is None
        request.addCookie(b"d", b"4", path=b"/", httpOnly=True)
        request.addCookie("e", "5")
        return b"ok"

    answer = page(check).ask(b"GET", b"/r", b"Cookie: a=1; b=2=3;odd", b"Cookie: c=")
    assert answer.headers[b"set-cookie"] == b"d=4; Path=/; HttpOnly|e=5"


def test_arguments() -> None:
    """Those of the query, and those of a form, which win."""

    def check(request: Any) -> bytes:
        assert request.content.read() == b"b=3&d=%20x+y"
        return repr(sorted(request.args.items())).encode()

    form = b"Content-Type: application/x-www-form-urlencoded; charset=utf-8"
    answer = page(check).ask(b"POST", b"/r?a=1&b=2&a=%32&c=", form, body=b"b=3&d=%20x+y")
    assert answer.body == repr([(b"a", [b"1", b"2"]), (b"b", [b"3"]), (b"c", [b""]), (b"d", [b" x y"])]).encode()
    assert page(lambda request: repr(request.args).encode()).ask().body == b"{}"


def test_arguments_of_many_parts() -> None:
    """A form with files in it."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n'  # noqa: E501
        b"\0\xff\r\n--x--\r\n"
    )
    web = page(lambda request: repr(request.args).encode())
    answer = web.ask(b"POST", b"/r", b"Content-Type: multipart/form-data; boundary=x", body=body)
    assert answer.body == repr({b"a": [b"1", b"\0\xff"]}).encode()
    assert web.ask(b"POST", b"/r", b"Content-Type: multipart/form-data", body=body).body == b"{}"


@pytest.mark.parametrize("kind", [b"text/plain", b"", b"application/json"])
def test_other_bodies_are_no_arguments(kind: bytes) -> None:
    """Only forms are taken apart."""
    web = page(lambda request: repr((request.args, request.content.getvalue())).encode())
    assert web.ask(b"POST", b"/r", b"Content-Type: " + kind, body=b"a=1").body == b"({}, b'a=1')"


def test_data() -> None:
    """``static.Data``, GET and HEAD."""
    web = Web(Data(b"hello", "text/plain"))
    answer = web.ask()
    assert (answer.status, answer.body, answer.headers[b"content-type"]) == (200, b"hello", b"text/plain")
    assert web.accounted == ["/r"]
    answer = web.ask(b"HEAD")
    assert (answer.status, answer.body, answer.headers[b"content-length"]) == (200, b"", b"5")
    assert web.ask(b"POST").status == 405
    assert web.ask().body == b"hello"


def test_errors() -> None:
    """``pages.notFound``, a method that is not offered, and a path that is not there."""
    assert Web(notFound()).ask().status == 404
    answer = Web(Data(b"", "text/plain")).ask(b"POST")
    assert (answer.status, sorted(answer.headers[b"allow"].split(b", "))) == (405, [b"GET", b"HEAD"])
    assert page(lambda request: b"").ask(b"PUT").status == 501  # Twisted's own opinion
    assert page(lambda request: b"").ask(b"GET", b"/other").status == 404


def test_status_reason_and_fields() -> None:
    """What a Resource sets is what is sent; what belongs to the connection is ours alone."""

    def render(request: Any) -> bytes:
        request.setResponseCode(201, b"Made")
        request.setHeader(b"X-A", b"1")
        request.responseHeaders.addRawHeader(b"x-a", b"2")
        request.setHeader(b"Connection", b"upgrade")
        request.setHeader(b"Transfer-Encoding", b"gzip")
        request.setHeader(b"X-Evil", b"a\r\nb: c")
        return b"made"

    web = page(render)
    web.send()
    assert web.transport.taken.startswith(b"HTTP/1.1 201 Made\r\n")
    answer = web.answer()
    assert answer.headers[b"x-a"] == b"1|2"
    assert answer.headers[b"content-type"] == b"text/html; charset=utf-8"
    assert answer.headers[b"x-evil"] == b"a b: c"
    assert not {b"connection", b"transfer-encoding", b"b"} & set(answer.headers)


def test_conditional_requests() -> None:
    """``setETag`` and ``setLastModified`` answer 304 where nothing changed."""

    def render(request: Any) -> bytes:
        cached = request.setETag(b'"v1"'), request.setLastModified(1_000_000_000)
        return b"" if any(cached) else b"page"

    web = page(render)
    answer = web.ask()
    assert (answer.headers[b"etag"], answer.headers[b"last-modified"]) == (b'"v1"', b"Sun, 09 Sep 2001 01:46:40 GMT")
    for condition in (b'If-None-Match: "v1"', b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"):
        answer = web.ask(b"GET", b"/r", condition)
        assert (answer.status, answer.body) == (304, b"")
        assert b"content-type" not in answer.headers
    assert web.ask(b"GET", b"/r", b'If-None-Match: "v2"').status == 200


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_writing_piece_by_piece(version: bytes) -> None:
    """Each piece is on its way when it is written: a Resource can stream."""

    def render(request: Any) -> int:
        request.write(b"one")
        return NOT_DONE_YET

    web = page(render)
    web.send(version=version)
    assert b"one" in web.transport.taken
    web.rendered.write(b"two")
    assert b"two" in web.transport.taken
    web.rendered.finish()
    assert web.answer().body == b"onetwo"
    assert web.rendered.sentLength == 6


def test_rendering_later() -> None:
    """``util.DeferredResource``."""
    waiting: Deferred[Resource] = Deferred()
    web = Web(DeferredResource(waiting))
    web.send()
    assert web.transport.taken == b""
    waiting.callback(Data(b"late", "text/plain"))
    assert web.answer().body == b"late"


def test_faking_head() -> None:
    """A Resource that knows only GET answers HEAD without its body."""
    seen: list[bytes] = []

    class OnlyGet(Resource):
        isLeaf = True
        allowedMethods = (b"GET",)

        def render(self, request: Any) -> bytes:
            seen.append(request.method)
            if request.method != b"GET":
                from twisted.web.error import UnsupportedMethod

                raise UnsupportedMethod((b"GET",))
            request.write(b"piece")
            return b"page"

    web = Web(OnlyGet())
    answer = web.ask(b"HEAD")
    assert (answer.status, answer.body, answer.headers[b"content-length"]) == (200, b"", b"4")
    assert seen == [b"HEAD", b"GET"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_resource_that_raises(begun: bool) -> None:
    """The client learns nothing of it, and an answer that had begun does not look complete."""

    def render(request: Any) -> bytes:
        if begun:
            request.write(b"half")
        raise RuntimeError("a secret")

    web = page(render)
    with logged() as events:
        web.send()
    assert b"secret" not in web.transport.taken
    if begun:
        assert web.transport.aborted
    else:
        assert web.answer().status == 500
    assert failures(events) == ["a secret"]


def test_the_end_is_told() -> None:
    """``notifyFinish``: a callback when all was sent, an errback when the client left; either once."""
    ends: list[object] = []

    def render(request: Any) -> int:
        request.notifyFinish().addBoth(ends.append)
        request.notifyFinish().addBoth(ends.append)
        return NOT_DONE_YET

    web = page(render)
    web.send()
    web.rendered.finish()
    assert ends == [None, None]
    web.send()
    web.transport.disconnect()
    assert [isinstance(end, Failure) and bool(end.check(ClientLost)) for end in ends[2:]] == [True, True]
    web.rendered.write(b"late")
    web.rendered.finish()
    assert len(ends) == 4


def test_a_body_that_is_too_large() -> None:
    """Beyond 64 KiB a Resource is not asked, whether or not the size was announced."""
    asked: list[object] = []
    web = page(lambda request: asked.append(request) or b"")
    assert web.ask(b"POST", b"/r", body=b"x" * (64 * 1024 + 1)).status == 413
    web = page(lambda request: asked.append(request) or b"")
    body = b"%x\r\n" % (64 * 1024 + 1) + b"x" * (64 * 1024 + 1) + b"\r\n0\r\n\r\n"
    web.transport.deliver(b"POST /r HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert web.answer().status == 413
    assert asked == []
    assert page(lambda request: b"ok").ask(b"POST", b"/r", body=b"x" * 64 * 1024).status == 200


# Producers.


def large_file(directory: Path) -> Path:
    file = directory / "large.bin"
    file.write_bytes(bytes(range(256)) * 4000)
    return file


@pytest_twisted.ensureDeferred
async def test_a_file(tmp_path: Path) -> None:
    """``static.File``: whole, in part, in several parts, not at all; at the pace of the client."""
    path = large_file(tmp_path)
    content = path.read_bytes()
    web = Web(File(str(path)))
    web.transport.stalled = True
    web.send()
    await eventually(lambda: web.transport.most_buffered > 65536)
    for _ in range(100):
        await deferLater(reactor, 0)
    assert web.transport.most_buffered < 65536 * 3
    web.transport.drain()

    async def answer(*arguments: bytes) -> Answer:
        if arguments:
            web.send(*arguments)
        await eventually(lambda: web.request.finished)
        return web.answer()

    whole = await answer()
    assert whole.body == content
    assert whole.headers[b"accept-ranges"] == b"bytes"
    part = await answer(b"GET", b"/r", b"Range: bytes=1000-300999")
    assert (part.status, part.body) == (206, content[1000:301000])
    assert part.headers[b"content-range"] == b"bytes 1000-300999/1024000"
    parts = await answer(b"GET", b"/r", b"Range: bytes=0-9,-5")
    assert parts.headers[b"content-type"].startswith(b"multipart/byteranges")
    assert content[:10] in parts.body
    assert (await answer(b"GET", b"/r", b"Range: bytes=9999999-")).status == 416
    assert (await answer(b"HEAD")).headers[b"content-length"] == b"1024000"
    assert (await answer(b"GET", b"/r", b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT")).status == 304


@pytest_twisted.ensureDeferred
async def test_a_file_for_a_client_that_leaves(tmp_path: Path) -> None:
    """The file is closed, and nobody goes on reading it."""
    path = large_file(tmp_path)
    opened: list[Any] = []

    class Watched(File):
        def openForReading(self) -> Any:
            opened.append(super().openForReading())
            return opened[-1]

    web = Web(Watched(str(path)))
    web.transport.stalled = True
    web.send()
    await eventually(lambda: web.transport.most_buffered > 65536)
    web.transport.disconnect()
    assert opened[0].closed
    for _ in range(10):
        await deferLater(reactor, 0)


@implementer(IPushProducer)
class Push:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def test_a_push_producer() -> None:
    """It is told to pause, to go on, and to stop."""
    producer = Push()

    def render(request: Any) -> int:
        request.registerProducer(producer, True)
        with pytest.raises(ValueError):
            request.registerProducer(Push(), True)
        return NOT_DONE_YET

    web = page(render)
    web.transport.stalled = True
    web.send()
    web.rendered.write(b"x" * 100_000)
    assert producer.calls == ["pause"]
    web.transport.drain()
    assert producer.calls == ["pause", "resume"]
    web.transport.disconnect()
    assert producer.calls == ["pause", "resume", "stop"]


def test_a_producer_that_is_done() -> None:
    """After it has been unregistered it is left alone."""
    producer = Push()
    web = page(lambda request: request.registerProducer(producer, True) or NOT_DONE_YET)
    web.send()
    web.rendered.unregisterProducer()
    web.transport.stalled = True
    web.rendered.write(b"x" * 100_000)
    web.rendered.finish()
    web.transport.disconnect()
    assert producer.calls == []


# The same over HTTP/2.


def over_http2(resource: IResource, settings: dict[int, int] | None = None) -> tuple[http2_client.Server, Any]:
    """A server with one Resource, and a client of it."""
    site = Site(lambda *_: None, Clock().seconds, lambda request: request.stream.peer)
    site.reserve({b"/r": resource})
    server = http2_client.Server(on_request=site.on_request)
    return server, server.connect(settings)


def test_resources_over_http2() -> None:
    """Answers, arguments, refusals and faults are those of HTTP/1.1."""
    resource = Page(lambda request: repr(sorted(request.args.items())).encode())
    _, client = over_http2(resource)
    form = (b"content-type", b"application/x-www-form-urlencoded")
    client.ask(1, http2_client.get(b"/r?a=1", form, method=b"POST"), end=False)
    client.put(1, b"b=2", end=True)
    status, headers, body = client.answer(1)
    assert (status, body) == (200, b"[(b'a', [b'1']), (b'b', [b'2'])]")
    assert (b"content-length", b"32") in headers
    verifyObject(IRequest, resource.rendered[0])
    client.ask(3, http2_client.get(b"/r", method=b"HEAD"))
    assert (client.answer(3)[0], client.body(3)) == (200, b"")
    client.ask(5, http2_client.get(b"/other"))
    assert client.answer(5)[0] == 404


def test_streaming_over_http2() -> None:
    """Each piece is on its way when it is written, and the end is told."""
    ends: list[object] = []

    def render(request: Any) -> int:
        request.notifyFinish().addBoth(ends.append)
        request.write(b"one")
        return NOT_DONE_YET

    resource = Page(render)
    _, client = over_http2(resource)
    client.ask(1, http2_client.get(b"/r"))
    assert client.body(1) == b"one"
    resource.rendered[0].write(b"two")
    assert client.body(1) == b"onetwo"
    resource.rendered[0].finish()
    assert client.ended(1)
    assert ends == [None]
    client.ask(3, http2_client.get(b"/r"))
    client.send(RstStreamFrame(3, error_code=8))
    assert isinstance(ends[1], Failure)


@pytest_twisted.ensureDeferred
async def test_a_file_over_http2(tmp_path: Path) -> None:
    """``static.File`` at the pace of the client's windows."""
    path = large_file(tmp_path)
    server, client = over_http2(File(str(path)))
    client.ask(1, http2_client.get(b"/r"))
    while not server.requests[0].finished:
        client.receive()
        client.open_window(0, 50_000)
        client.open_window(1, 50_000)
        await deferLater(reactor, 0)
    while not client.ended(1):
        client.open_window(0, 50_000)
        client.open_window(1, 50_000)
    assert client.body(1) == path.read_bytes()
