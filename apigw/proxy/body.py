# Compiled: see docs/decisions/compiled.md
"""Reads the whole body of a request for a policy, before the service gets anything."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import final

from twisted.internet.defer import Deferred, fail, succeed

from apigw import errors
from apigw.contract.exchange import Exchange, Seen
from apigw.contract.view import View
from apigw.contract.view_shared import Bodies
from apigw.proxy.held_body import Buffers
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.request import Request


@final
class WholeBodies(Bodies):
    """What is read counts among the ``buffers`` until it has been read, as what is held for a service does then."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers

    def read(self, exchange: Exchange, view: Seen, limit: int) -> Awaitable[bytes]:
        assert isinstance(view, View)
        if view.is_reading:
            raise RuntimeError("read_body was called before, and has not ended")
        request = exchange.request
        if request.body_wanted:
            raise RuntimeError("read_body was called before, and has failed")
        length = request.content_length
        if length is not None and length > limit:
            return fail(too_large(limit))
        if length == 0:
            return succeed(b"")
        return Reading(exchange, view, self._buffers, limit).begin()


def too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"The body may have up to {limit} bytes.")


@final
class Reading:
    """The ``wire.request.Listener`` while a body is read."""

    def __init__(self, exchange: Exchange, view: View, buffers: Buffers, limit: int) -> None:
        self._exchange = exchange
        self._request: Request = exchange.request
        self._view = view
        self._buffers = buffers
        self._limit = limit
        self._body = bytearray()
        self._read: Deferred[bytes] = Deferred(self._cancelled)
        self._ended = False

    def begin(self) -> Deferred[bytes]:
        view = self._view
        view.is_reading = True
        if view.waits is not None:
            view.waits.pause_time()
        self._request.listener = self
        self._request.read_body()
        return self._read

    # wire.request.Listener

    def body_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._body += data
        full = self._buffers.add(len(data))
        if len(self._body) > self._limit:
            self._fail(too_large(self._limit))
        elif full and not self._request.body_complete:
            self._fail(errors.Overloaded("The gateway has too many bodies in memory.", [(b"retry-after", b"1")]))

    def body_finished(self) -> None:
        if self._ended:
            return
        body = bytes(self._body)
        self._end()
        self._request.put_back(body)
        self._read.callback(body)

    def client_failed(self, error: Refused | ClientLost) -> None:
        self._exchange.driver.client_failed(self._exchange, error)

    def _fail(self, error: errors.GatewayError) -> None:
        self._request.pause_body()
        self._end()
        self._read.errback(error)

    def _cancelled(self, _: object) -> None:
        if not self._ended:
            self._request.pause_body()
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._buffers.release(len(self._body))
        self._body = bytearray()
        if not self._exchange.ended:
            self._request.listener = self._exchange
        view = self._view
        view.is_reading = False
        if view.waits is not None:
            view.waits.resume_time()
