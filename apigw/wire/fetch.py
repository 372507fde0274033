"""How the gateway fetches a document for itself: with treq, in bounded size, trusting the platform's authorities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


class FetchFailed(Exception):
    """No 200, too much, or broken off."""


class Fetch:
    """``await fetch(url)`` gives the body of a 200 answer of at most ``limit`` bytes, and its headers in lower case."""

    def __init__(self, agent: IAgent, limit: int) -> None:
        self._agent = agent
        self._limit = limit

    async def __call__(self, url: str) -> tuple[bytes, Mapping[str, str]]:
        # A client of its own for each call: treq's keeps cookies.
        response: Any = await HTTPClient(_AsSent(self._agent)).get(
            url, headers=Headers({"accept": ["application/json"]}), allow_redirects=False, unbuffered=True
        )
        body = _Bounded(self._limit)
        response.deliverBody(body)
        content = await body.content
        if response.code != 200:
            raise FetchFailed(f"answered with {response.code}")
        fields = {name.decode("latin-1").lower(): values for name, values in response.headers.getAllRawHeaders()}
        return content, {name: values[0].decode("latin-1") for name, values in fields.items()}


@implementer(IAgent)
class _AsSent:
    """Asks for no compression, and undoes none: a bound on what is read would be none on what it is unpacked to."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        if headers is not None:
            headers.removeHeader(b"accept-encoding")
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_packed)


def _packed(response: Any) -> Any:
    response.headers.removeHeader(b"content-encoding")
    return response


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
