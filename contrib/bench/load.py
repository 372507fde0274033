"""A load that knows what became of every single request: kept-alive HTTP/1.1 over raw sockets, on asyncio.

wrk loads harder and counts; this one says which request failed, how, and whether it had left before a given moment.
It sends nothing again, takes every answer but a 2xx with the right body for a failure, and never two requests at once
over a connection.
"""

from __future__ import annotations

import asyncio
import socket
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from attrs import define, field, frozen
from httptools import HttpParserError, HttpResponseParser

Address = tuple[str, int]
EXAMPLES = 20


@frozen
class Request:
    """The bytes to send, and the body that must come back (``None``: any)."""

    data: bytes
    expect: bytes | None = None


def encode(path: str, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """An HTTP/1.1 request as it goes over the wire; with a Content-Length where there is a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


@frozen
class Failure:
    """``kind`` is a few words. ``sent`` and ``at`` are ``time.monotonic()``, ``sent`` ``None`` if some of it stayed."""

    kind: str
    detail: str
    sent: float | None
    at: float
    fresh: bool

    def __str__(self) -> str:
        where = "on a new connection" if self.fresh else "on a kept-alive connection"
        return f"{self.kind} {where}{': ' if self.detail else ''}{self.detail}"


@define
class Tally:
    """What became of the requests. ``latencies`` are seconds, of answered requests; ``failures`` keeps every one."""

    answered: int = 0
    closes: int = 0
    statuses: Counter[int] = field(factory=Counter)
    latencies: array[float] = field(factory=lambda: array("d"), repr=False)
    failures: list[Failure] = field(factory=list)

    @property
    def kinds(self) -> Counter[str]:
        return Counter(failure.kind for failure in self.failures)

    def sent_before(self, moment: float) -> list[Failure]:
        """The failures of requests that had left whole before ``moment``."""
        return [failure for failure in self.failures if failure.sent is not None and failure.sent < moment]

    def percentile(self, share: float) -> float:
        """Seconds within which ``share`` of the answers came; 0 if there were none (nearest rank)."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def explain(failures: Iterable[Failure]) -> tuple[str, ...]:
    """What happened, and how often; the most frequent first, and no more than ``EXAMPLES`` lines."""
    return tuple(f"{count} x {text}" for text, count in Counter(map(str, failures)).most_common(EXAMPLES))


class Exchange(asyncio.Protocol):
    """One connection of a load. ``over`` is set when it is closed. ``first`` is a request sent already, and when."""

    def __init__(self, load: Load, first: tuple[Request, float] | None = None) -> None:
        self._load = load
        self._first = first
        self.over: asyncio.Future[None] = load.loop.create_future()
        self.fresh = True
        self.busy = False
        self.sent: float | None = None
        self.began = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = HttpResponseParser(self)
        self._load.open.add(self)
        if self._first is None:
            self.send()
        else:
            request, self.sent = self._first
            self._await(request, self.sent)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail("malformed answer", str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            how = "reset" if isinstance(exc, ConnectionResetError) else "closed"
            self._fail(f"{how} {'in the middle of' if self._begun else 'before'} the answer", "")
        self._load.open.discard(self)
        if not self.over.done():
            self.over.set_result(None)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._begun = True
        if not self.busy:
            self._fail("an answer that nobody asked for", "")

    def on_headers_complete(self) -> None:
        self._keep = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        tally, status, body = self._load.tally, self._parser.get_status_code(), b"".join(self._body)
        if status < 200 or not self.busy:
            return
        self.busy = False
        tally.statuses[status] += 1
        if not 200 <= status < 300:
            self._record(f"status {status}", body[:200].decode(errors="replace"))
        elif self._request.expect is not None and body != self._request.expect:
            self._record("wrong body", f"{body[:80]!r} for {self._request.expect[:80]!r}")
        else:
            tally.answered += 1
            tally.latencies.append(time.monotonic() - self.began)
        self.fresh = False
        if self._keep and not self._load.stopping:
            self._load.loop.call_soon(self.send)
        else:
            tally.closes += not self._keep
            self._transport.close()

    # Ours.

    def send(self) -> None:
        """Send the next request, or close if the load stops or the connection is gone already."""
        if self._transport.is_closing():
            return
        if self._load.stopping:
            self._transport.close()
            return
        request = next(self._load.requests)
        self._await(request, time.monotonic())
        self._transport.write(request.data)
        # asyncio writes at once; what it could not write now has not left whole.
        self.sent = None if self._transport.get_write_buffer_size() else time.monotonic()

    def expire(self, moment: float) -> None:
        """Give up on an answer to a request that began before ``moment``."""
        if self.busy and self.began < moment:
            self._fail("no answer in time", "")

    def abandon(self) -> None:
        """Cut the connection, and count nothing."""
        self.busy = False
        self._transport.abort()

    def _await(self, request: Request, began: float) -> None:
        self._request = request
        self._body: list[bytes] = []
        self._begun = self._keep = False
        self.began = began
        self.busy = True

    def _record(self, kind: str, detail: str) -> None:
        self._load.tally.failures.append(Failure(kind, detail, self.sent, time.monotonic(), self.fresh))

    def _fail(self, kind: str, detail: str) -> None:
        self._record(kind, detail)
        self.abandon()


class Load:
    """``connections`` connections to ``address``, each sending the next of ``requests`` once the last is answered.

    A connection that ends is replaced. ``timeout`` is in seconds, for an answer as well as for a connect. ``await
    run()`` ends after ``stop()``, when the requests in flight are answered; ``tally`` may be read at any time.
    """

    def __init__(
        self, address: Address, requests: Iterator[Request], connections: int = 32, timeout: float = 10.0
    ) -> None:
        self.address = address
        self.requests = requests
        self.connections = connections
        self.timeout = timeout
        self.tally = Tally()
        self.stopping = False
        self.open: set[Exchange] = set()

    @property
    def in_flight(self) -> int:
        return sum(exchange.busy for exchange in self.open)

    def stop(self) -> None:
        """Send no more. Connections that wait for nothing close now, the others once they are answered."""
        self.stopping = True
        for exchange in list(self.open):
            if not exchange.busy:
                exchange.abandon()

    async def run(self) -> Tally:
        self.loop = asyncio.get_running_loop()
        clock = self.loop.create_task(self._watch())
        try:
            await asyncio.gather(*(self._replace() for _ in range(self.connections)))
            while self.open:  # What was adopted, until it is answered or its time is up.
                await asyncio.sleep(0.02)
        finally:
            clock.cancel()
            for exchange in list(self.open):
                exchange.abandon()
        return self.tally

    async def adopt(self, connected: socket.socket, request: Request, sent: float) -> None:
        """Wait for the answer on a connection over which ``request`` went, at ``sent``, before the loop knew of it."""
        _, exchange = await self.loop.create_connection(lambda: Exchange(self, (request, sent)), sock=connected)
        await exchange.over

    async def _replace(self) -> None:
        while not self.stopping:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.timeout):
                    _, exchange = await self.loop.create_connection(lambda: Exchange(self), *self.address)
            except TimeoutError:
                self._refused("connect timed out", began)
            except OSError as error:
                refused = isinstance(error, ConnectionRefusedError)
                self._refused("connect refused" if refused else f"connect: {error}", began)
                await asyncio.sleep(0.05)
            else:
                await exchange.over

    def _refused(self, kind: str, began: float) -> None:
        self.tally.failures.append(Failure(kind, "", None, began, fresh=True))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            for exchange in list(self.open):
                exchange.expire(time.monotonic() - self.timeout)


def connect_and_send(address: Address, request: Request) -> tuple[socket.socket, float]:
    """Connect and send at once, without the loop: afterwards the request lies whole in the receiver's kernel.

    Returns the socket, for ``Load.adopt``, and the moment. Raises ``OSError`` (a full accept queue is a timeout).
    """
    connected = socket.create_connection(address, timeout=0.5)
    try:
        connected.sendall(request.data)
    except OSError:
        with suppress(OSError):
            connected.close()
        raise
    sent = time.monotonic()
    connected.setblocking(False)
    return connected, sent


async def status_of(address: Address, path: str, timeout: float = 10.0) -> int:
    """The status with which a single GET is answered, on a connection of its own. Raises ``OSError`` if it is not."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(encode(path, headers=[("Connection", "close")]))
            answer = await reader.read()
        finally:
            writer.close()
    if not answer.startswith(b"HTTP/1.1 "):
        raise ConnectionError(f"no answer to GET {path}: {answer[:80]!r}")
    return int(answer[9:12])
