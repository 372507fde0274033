"""Fetches documents for the gateway, with treq, a maximum size, and the platform's certificate authorities."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps, loads
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from apigw import __version__
from apigw.wire.errors import UpstreamError

AGENT = f"apigw/{__version__}"
"""The ``User-Agent``. Firewalls of some providers refuse requests without one."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """The answer is not 200, too large, or incomplete."""


@frozen
class Fetched:
    """An answer. Names of ``headers`` are in lower case; of several of one name the first counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises ``ValueError`` for what is no JSON."""
        return loads(self.body)


class Calls:
    """Requests of any kind, with any answer of at most ``limit`` bytes, within ``timeout`` seconds.

    Redirects are not followed, cookies not kept, and compressed answers are refused.
    """

    def __init__(self, agent: IAgent, clock: IReactorTime) -> None:
        self._agent = _Uncompressed(agent)
        self._clock = clock

    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: Any = None,
        timeout: float = 5.0,
        limit: int = 1 << 20,
    ) -> Deferred[Fetched]:
        """Fails with ``FetchFailed`` without an answer, or with one that is too large, and with ``ValueError`` for what
        cannot be sent."""
        calling = Deferred.fromCoroutine(self._call(method, url, headers or {}, body, json, limit))
        return calling.addTimeout(timeout, self._clock, _too_late)

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, json: Any, limit: int
    ) -> Fetched:
        fields = Headers({"user-agent": [AGENT]})
        for name, value in headers.items():
            fields.setRawHeaders(name, [value])
        if json is not None:
            body = dumps(json).encode()
            if not fields.hasHeader("content-type"):
                fields.setRawHeaders("content-type", ["application/json"])
        client = HTTPClient(self._agent)  # of its own for each call: treq's keeps cookies
        try:
            response: Any = await client.request(
                method, url, headers=fields, data=body or None, allow_redirects=False, unbuffered=True
            )
        except UpstreamError as error:
            raise FetchFailed(f"gave no answer: {error}") from error
        read = _Bounded(limit)
        response.deliverBody(read)
        content = await read.content
        found: dict[str, str] = {}
        for key, values in response.headers.getAllRawHeaders():
            found.setdefault(key.decode("latin-1").lower(), values[0].decode("latin-1"))
        return Fetched(response.code, found, content)


def _too_late(result: object, timeout: float) -> NoReturn:
    raise FetchFailed(f"did not answer within {timeout:g} s")


class Fetch:
    """``await fetch(url)`` gives the body of a 200 answer of at most ``limit`` bytes, and its headers in lower case.

    Redirects are not followed. Compressed answers are refused, because few bytes can expand to many.
    """

    def __init__(self, agent: IAgent, limit: int) -> None:
        self._agent = _Uncompressed(agent)
        self._limit = limit

    async def __call__(self, url: str) -> tuple[bytes, Mapping[str, str]]:
        # A client of its own for each call: treq's keeps cookies.
        headers = Headers({"accept": ["application/json"], "user-agent": [AGENT]})
        response: Any = await HTTPClient(self._agent).get(url, headers=headers, allow_redirects=False, unbuffered=True)
        body = _Bounded(self._limit)
        response.deliverBody(body)
        content = await body.content
        fields = {name.decode("latin-1").lower(): values for name, values in response.headers.getAllRawHeaders()}
        if response.code != 200:
            raise FetchFailed(_refusal(response.code, url, fields.get("location", [b""])[0]))
        return content, {name: values[0].decode("latin-1") for name, values in fields.items()}


def _refusal(status: int, url: str, location: bytes) -> str:
    if status not in _REDIRECTS or not location:
        return f"answered with {status}"
    try:
        parts = urlsplit(urljoin(url, location.decode("ascii")))
        place = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        place = "an address that cannot be read"
    return f"answered with {status}, a redirect to {place}; redirects are not followed: configure the address itself"


@implementer(IAgent)
class _Uncompressed:
    """Asks for an answer as it is, whatever treq asks for, and refuses any other before treq unpacks it."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"accept-encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(_as_it_is)


def _as_it_is(response: IResponse) -> IResponse:
    codings = [value.strip().lower() for value in response.headers.getRawHeaders(b"content-encoding", [])]
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
