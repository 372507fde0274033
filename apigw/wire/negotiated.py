# Compiled: see docs/decisions/compiled.md
"""The connections to one address whose protocol the service chooses: HTTP/2 or HTTP/1.1, by ALPN."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from apigw.wire.agent import http1_pool
from apigw.wire.alpn import ByALPN
from apigw.wire.deadlines import Deadlines
from apigw.wire.http2.streams import Streams, http2_pool
from apigw.wire.interfaces import Connections, UpstreamConnection
from apigw.wire.pool import Pool, PoolSettings


class Negotiated(Connections):
    """A pool for each protocol. The pool of the protocol that the service chose last makes new connections; before the
    first choice it is that of HTTP/2, which makes one at a time.

    The choice may change from one connection to the next, as while a service is replaced. Then the connection goes to
    the other pool, together with the exchanges that wait for one. Both have one ``allowance`` if the settings name it.
    """

    def __init__(self, http1: Pool, http2: Streams) -> None:
        self._http1 = http1
        self._http2 = http2
        self._chosen: Connections = http2
        http1.on_other = self._chose_http2
        http2.on_other = self._chose_http1

    @property
    def connections(self) -> int:
        return self._http1.connections + self._http2.connections

    @property
    def tunnels(self) -> int:
        return self._http1.tunnels

    @property
    def waiting(self) -> int:
        return self._http1.waiting + self._http2.waiting

    def take(self, careful: bool = False) -> UpstreamConnection | None:
        connection = self._http2.take(careful)
        return connection if connection is not None else self._http1.take(careful)

    def connect(self) -> Deferred[UpstreamConnection]:
        return self._chosen.connect()

    def give_way(self) -> None:
        self._http1.give_way()
        self._http2.give_way()

    def close(self) -> None:
        self._http1.close()
        self._http2.close()

    def _chose_http1(self, transport: Any, waiting: list[Deferred[UpstreamConnection]]) -> None:
        self._chosen = self._http1
        self._http1.adopt(transport)
        self._hand_over(self._http1, waiting)

    def _chose_http2(self, transport: Any, waiting: list[Deferred[UpstreamConnection]]) -> None:
        self._chosen = self._http2
        self._http2.adopt(transport)
        self._hand_over(self._http2, waiting)

    def _hand_over(self, pool: Connections, waiting: list[Deferred[UpstreamConnection]]) -> None:
        for given in waiting:
            connection = pool.take()
            if connection is not None:
                _give(given, connection)
            else:
                pool.connect().addCallbacks(partial(_give, given), partial(_refuse, given))


def _give(given: Deferred[UpstreamConnection], connection: UpstreamConnection) -> None:
    if given.called:  # cancelled meanwhile
        connection.close()
    else:
        given.callback(connection)


def _refuse(given: Deferred[UpstreamConnection], failure: Failure) -> None:
    if not given.called:
        given.errback(failure)


def negotiated_pool(
    deadlines: Deadlines, scheme: bytes, endpoint: IStreamClientEndpoint, settings: PoolSettings
) -> Connections:
    """Without TLS there is nothing to choose by, and HTTP/1.1 is spoken."""
    if scheme == b"http":
        return http1_pool(deadlines, scheme, endpoint, settings)
    return Negotiated(
        http1_pool(deadlines, scheme, ByALPN(endpoint, http2=False), settings),
        http2_pool(deadlines, scheme, ByALPN(endpoint, http2=True), settings),
    )
