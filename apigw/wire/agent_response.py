"""What a program's own request is answered with: an ``IResponse`` for treq."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers as HeadersObject
from twisted.web.iweb import UNKNOWN_LENGTH, IClientRequest, IResponse
from zope.interface import implementer

from apigw.wire.headers import Headers, first
from apigw.wire.interfaces import UpstreamConnection

KEPT_BODY = 64 * 1024
"""Bytes of a body that are read before ``deliverBody``, so that a short body frees its connection at once."""


@implementer(IResponse)
class Response:
    """A response. Up to ``KEPT_BODY`` bytes are buffered before ``deliverBody``; then reading pauses."""

    version = (b"HTTP", 1, 1)
    previousResponse: IResponse | None = None

    def __init__(
        self,
        request: IClientRequest,
        code: int,
        phrase: bytes,
        headers: Headers,
        connection: UpstreamConnection | None,
        abandon: Callable[[], None] | None,
    ) -> None:
        self.request = request
        self.code = code
        self.phrase = phrase
        self.headers = HeadersObject()
        for name, value in headers:
            self.headers.addRawHeader(name, value)
        length = first(headers, b"content-length")
        self.trailers: Headers = []
        """When the body has been delivered, those that came behind it."""
        self.length = int(length) if length is not None else UNKNOWN_LENGTH
        self._connection: UpstreamConnection | None = connection
        self._abandon = abandon
        self._kept = b""
        self._reader: IProtocol | None = None
        self._delivered = False
        self._reason: Failure | None = None
        self._given_up = False

    def deliverBody(self, protocol: IProtocol) -> None:
        if self._delivered:
            raise RuntimeError("The body has been delivered already.")
        self._delivered = True
        self._reader = protocol
        protocol.makeConnection(_BodyTransport(self))  # type: ignore[arg-type]  # as much of one as a reader asks for
        kept, self._kept = self._kept, b""
        if kept and self._reader is not None:
            self._reader.dataReceived(kept)
        if self._reason is not None:
            self.ended(self._reason)
        else:
            self.resume()

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.dataReceived(data)
        elif not self._delivered:
            self._kept += data
            if len(self._kept) > KEPT_BODY:
                self.pause()

    def ended(self, reason: Failure) -> None:
        """The response no longer uses the connection, nor the call that it answers."""
        self._connection = self._abandon = None
        if self._given_up:
            reason = Failure(ResponseFailed([Failure(ConnectionAborted())]))
        self._reason = reason
        if self._delivered:
            self._tell(reason)

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause_response()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_response()

    def give_up(self) -> None:
        """Close the connection, because the reader needs no more. It gets ``ResponseFailed``, even if all has come."""
        self._given_up = True
        if self._abandon is not None:
            self._abandon()
            self.ended(Failure(ConnectionAborted()))

    def _tell(self, reason: Failure) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.connectionLost(reason)


class _BodyTransport:
    """What a reader of a body may ask of its connection: to wait, and to end."""

    disconnecting = False

    def __init__(self, response: Response) -> None:
        self.loseConnection = self.stopProducing = self.abortConnection = response.give_up
        self.pauseProducing = response.pause
        self.resumeProducing = response.resume
