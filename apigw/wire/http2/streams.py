# Compiled: see docs/decisions/compiled.md
"""The pool of streams of a service with HTTP/2. For HTTP/1.1 there is ``wire.pool.Pool``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure

from apigw.wire.alpn import OtherProtocol, take_over
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted
from apigw.wire.http2.client import HTTP2Client, Told
from apigw.wire.interfaces import Connections, UpstreamConnection
from apigw.wire.pool import Dialling, OnOther, PoolSettings, Queued, jittered, why_not
from apigw.wire.reactor.connecting import OneConnection

MakeClient = Callable[[Told, Told], HTTP2Client]
"""Makes an unconnected ``HTTP2Client`` from its ``on_room`` and ``on_lost``."""


class Streams(Connections):
    """The streams of one address. A connection is made only when all others are full, and one at a time: the number of
    streams that a service allows is known only when it is connected.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, make: MakeClient, settings: PoolSettings, deadlines: Deadlines
    ) -> None:
        self._endpoint = endpoint
        self._make = make
        self._settings = settings
        self._allowance = settings.allowed()
        self._allowance.retries(self._serve)
        self._deadlines = deadlines
        self._clients: dict[HTTP2Client, IDelayedCall | None] = {}
        """Those that take exchanges, with the call that ends them for their age."""
        self._dialled: HTTP2Client | None = None
        self._dialling: Dialling | None = None
        self._waiting: dict[Queued, None] = {}
        self._closed = False
        self.on_other: OnOther | None = None
        """Set if the service may choose HTTP/1.1 for a connection instead."""

    @property
    def connections(self) -> int:
        return len(self._clients) + (self._dialled is not None)

    @property
    def tunnels(self) -> int:
        return 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, careful: bool = False) -> UpstreamConnection | None:
        """Also for requests that cannot be repeated: HTTP/2 says which requests were not processed (RFC 9113 §8.7)."""
        if not self._waiting:
            for client in self._clients:
                if client.room > 0:
                    return client.begin()
        return None

    def connect(self) -> Deferred[UpstreamConnection]:
        if not self._allowance.wait():
            return fail(PoolExhausted("too many requests wait for a stream"))
        now = self._deadlines.seconds()
        waiting = Queued(now, now + self._settings.connect_timeout, self.forget)
        if not self._clients:
            waiting.error = ConnectFailed(f"no connection within {self._settings.connect_timeout:g} s")
        self._waiting[waiting] = None
        self._deadlines.watch(waiting)
        self._serve()
        return waiting.given

    def close(self) -> None:
        """Waiting exchanges are still served; then every connection is closed when its exchanges have ended."""
        self._closed = True
        self._serve()

    def adopt(self, transport: Any) -> None:
        """Add a connection that was made elsewhere, and whose handshake is complete."""
        client = self._make(self._serve, self._lost)
        client.when_ready.addCallbacks(self._adopted, lambda _: None)
        take_over(transport, client)

    def forget(self, waiting: Queued) -> None:
        """Remove an entry from the queue."""
        self._deadlines.forget(waiting)
        if waiting in self._waiting:
            del self._waiting[waiting]
            self._allowance.leave()

    def _serve(self, _: HTTP2Client | None = None) -> None:
        """Give free streams to the waiting exchanges, and connect if there are too few."""
        for client in list(self._clients):
            while self._waiting and client.room > 0:
                waiting = next(iter(self._waiting))
                self.forget(waiting)
                waiting.given.callback(client.begin())
        if self._waiting and self._dialled is None and self._allowance.take():
            self._dial()
        if self._closed and not self._waiting:
            for client in list(self._clients):
                client.close()

    def _dial(self) -> None:
        client = self._make(self._serve, self._lost)
        self._dialled = client
        dialling = self._dialling = Dialling(self._deadlines.seconds() + self._settings.connect_timeout)
        self._deadlines.watch(dialling)
        client.connect_until(dialling.deadline)
        client.when_ready.addCallbacks(self._connected, self._not_connected)
        dialling.connecting = self._endpoint.connect(OneConnection(client))
        dialling.connecting.addErrback(self._cannot_connect, client)

    def _cannot_connect(self, failure: Failure, client: HTTP2Client) -> None:
        if not client.when_ready.called:
            client.when_ready.errback(failure)

    def _connected(self, client: HTTP2Client) -> None:
        self._dialled_one()
        self._add(client)

    def _adopted(self, client: HTTP2Client) -> None:
        self._allowance.take_anyway()
        self._add(client)

    def _add(self, client: HTTP2Client) -> None:
        settings = self._settings
        client.last_number = min(client.last_number, 2 * max(1, round(jittered(settings.max_requests))) - 1)
        self._clients[client] = None
        if settings.max_age != NEVER:
            self._clients[client] = self._deadlines.clock.callLater(jittered(settings.max_age), client.close)
        self._serve()

    def _dialled_one(self) -> None:
        self._dialled = None
        if self._dialling is not None:
            self._deadlines.forget(self._dialling)
            self._dialling = None

    def _not_connected(self, failure: Failure) -> None:
        """Fail the waiting exchanges, which then try another target, unless other connections may have room soon."""
        self._dialled_one()
        self._allowance.give_back()
        other = self.on_other if isinstance(failure.value, OtherProtocol) else None
        if self._clients and other is None:
            return
        waiting = list(self._waiting)
        for one in waiting:
            self.forget(one)
        if other is not None:
            assert isinstance(failure.value, OtherProtocol)
            other(failure.value.transport, [one.given for one in waiting])
            return
        for one in waiting:
            one.given.errback(why_not(failure))

    def _lost(self, client: HTTP2Client) -> None:
        if client in self._clients:
            aging = self._clients.pop(client)
            self._allowance.give_back()
            if aging is not None and aging.active():
                aging.cancel()
        self._serve()

    def give_way(self) -> None:
        if self._clients and self._allowance.is_wanted:
            client = min(self._clients, key=_in_flight)
            if self._allowance.gives_way(client.in_flight > 0):
                client.close()


def _in_flight(client: HTTP2Client) -> int:
    return client.in_flight


def http2_pool(deadlines: Deadlines, scheme: bytes, endpoint: IStreamClientEndpoint, settings: PoolSettings) -> Streams:
    make = partial(HTTP2Client, deadlines, scheme, settings.keepalive_timeout)
    return Streams(endpoint, make, settings, deadlines)
