"""Requests of any kind, for policies that users write."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps, loads
from typing import Any, NoReturn

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from apigw.wire.errors import UpstreamError
from apigw.wire.fetch import Ask, FetchFailed


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


@implementer(IBodyProducer)
class WholeBody:
    """A body that is there; treq's own is produced in turns of the installed reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


class Calls:
    """Requests with answers of at most ``limit`` bytes, within ``timeout`` seconds in all."""

    def __init__(self, agent: IAgent, clock: IReactorTime) -> None:
        self._agent = agent
        self._clock = clock

    def __call__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes,
        json: Any,
        timeout: float,
        limit: int,
    ) -> Deferred[Fetched]:
        """Fails with ``FetchFailed`` without an answer, or with one that is too large, and with ``ValueError`` for what
        cannot be sent."""
        fields = Headers({name: [value] for name, value in (headers or {}).items()})
        if json is not None:
            body = dumps(json).encode()
            if not fields.hasHeader("content-type"):
                fields.setRawHeaders("content-type", ["application/json"])
        calling = Deferred.fromCoroutine(self._call(method, url, fields, WholeBody(body) if body else None, limit))
        return calling.addTimeout(timeout, self._clock, _too_late)

    async def _call(self, method: str, url: str, fields: Headers, body: WholeBody | None, limit: int) -> Fetched:
        try:
            answered = await Ask(self._agent, limit)(url, fields, body, method)
        except UpstreamError as error:
            raise FetchFailed(f"gave no answer: {error}") from error
        return Fetched(answered.status, answered.headers, answered.body)


def _too_late(result: object, timeout: float) -> NoReturn:
    raise FetchFailed(f"did not answer within {timeout:g} s")
