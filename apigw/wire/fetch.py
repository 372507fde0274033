"""Fetches documents for the gateway, with treq, a maximum size, and the platform's certificate authorities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from apigw import __version__
from apigw.wire.headers import Headers as Fields

AGENT = f"apigw/{__version__}"
"""The ``User-Agent``. Firewalls of some providers refuse requests without one."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """The answer is not 200, too large, or incomplete."""


@frozen
class Answered:
    """A whole answer, as it came. ``fields`` have names in lower case."""

    status: int
    fields: Fields
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The fields as text. Of several of one name the first counts."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self.fields)}


class Ask:
    """``await ask(url, headers)`` gives the answer to a GET, whatever its status, with at most ``limit`` bytes of body.
    With ``data``, to a POST of that, unless another ``method`` is named.

    Redirects are not followed. Compressed answers are refused, because few bytes can expand to many. Raises
    ``FetchFailed``, and what the agent does.
    """

    def __init__(self, agent: IAgent, limit: int) -> None:
        self._agent = agent
        self._limit = limit

    async def __call__(
        self, url: str, headers: Headers, data: bytes | IBodyProducer | None = None, method: str = ""
    ) -> Answered:
        method = method or ("GET" if data is None else "POST")
        headers.setRawHeaders("user-agent", [AGENT])
        fields: Fields = []

        def judge(response: IResponse) -> IResponse:
            fields.extend(_taken(response))
            return _as_it_is(response, fields)

        # A client of its own for each call: treq's keeps cookies.
        response: Any = await HTTPClient(Uncompressed(self._agent, judge)).request(
            method, url, headers=headers, data=data, allow_redirects=False, unbuffered=True
        )
        body = _Bounded(self._limit)
        response.deliverBody(body)
        return Answered(response.code, fields, await body.content)


def rehearse() -> None:
    """Ask nobody for anything. What Python looks up at the first request and keeps, as which classes are mappings, is
    then shared by the processes that this one forks: 0.4 MiB for each that asks."""
    HTTPClient(_Nobody()).request("GET", "http://localhost/", allow_redirects=False, unbuffered=True)


@implementer(IAgent)
class _Nobody:
    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        return Deferred()


class Fetch:
    """``await fetch(url)`` gives the body of a 200 answer of at most ``limit`` bytes, and its headers in lower case."""

    def __init__(self, agent: IAgent, limit: int) -> None:
        self._ask = Ask(agent, limit)

    async def __call__(self, url: str) -> tuple[bytes, Mapping[str, str]]:
        answered = await self._ask(url, Headers({"accept": ["application/json"]}))
        headers = answered.headers
        if answered.status != 200:
            raise FetchFailed(_refusal(answered.status, url, headers.get("location", "")))
        return answered.body, headers


def _refusal(status: int, url: str, location: str) -> str:
    if status not in _REDIRECTS or not location:
        return f"answered with {status}"
    try:
        parts = urlsplit(urljoin(url, location))
        place = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        place = "an address that cannot be read"
    return f"answered with {status}, a redirect to {place}; redirects are not followed: configure the address itself"


def as_it_came(response: IResponse) -> IResponse:
    """For who does not look at the body: it is not unpacked, as few bytes can expand to many, or be no such stream. Nor
    are there cookies to keep: at those that are not ASCII treq fails."""
    response.headers.removeHeader(b"content-encoding")
    response.headers.removeHeader(b"set-cookie")
    return response


@implementer(IAgent)
class Uncompressed:
    """Asks for an answer as it is, whatever treq asks for. ``judge`` has each answer before treq, which unpacks what
    says that it is compressed."""

    def __init__(self, agent: IAgent, judge: Callable[[IResponse], IResponse] = as_it_came) -> None:
        self._agent = agent
        self._judge = judge

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"accept-encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(self._judge)


def _taken(response: IResponse) -> Fields:
    """The fields of an answer, with names in lower case. treq sees none of them: it fails at cookies that are not
    ASCII, and adds a field where there is no ``Content-Encoding``."""
    headers = response.headers
    fields = [(name.lower(), value) for name, values in headers.getAllRawHeaders() for value in values]
    for name, _ in fields:
        headers.removeHeader(name)
    return fields


def _as_it_is(response: IResponse, fields: Fields) -> IResponse:
    codings = [value.strip().lower() for name, value in fields if name == b"content-encoding"]
    if any(coding not in (b"", b"identity") for coding in codings):
        response.deliverBody(_Unread())
        raise FetchFailed("is compressed, though it was asked for as it is")
    return response


class _Unread(Protocol):
    """Gives a body up at once."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class _Bounded(Protocol):
    """Reads a body, and gives it up where it is too large."""

    transport: Any

    def __init__(self, limit: int) -> None:
        self.content: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        self._length += len(data)
        self._pieces.append(data)
        if self._length > self._limit and not self.content.called:
            self.content.errback(FetchFailed(f"is larger than {self._limit} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.content.called:
            if reason.check(ResponseDone):
                self.content.callback(b"".join(self._pieces))
            else:
                self.content.errback(FetchFailed("broke off"))
