"""An origin that does as it is told in the query: waits, sends much, reads slowly. ``python -m bench.origin PORT``.

``?wait=S`` answers after S seconds; ``?size=N`` with N bytes; ``?pause=S&at=N`` stops reading the request's body for S
seconds after N bytes of it. Without ``size`` the answer is JSON that repeats the path, so that a client can tell its
own answer from another's, with the number and the checksum of the bytes that were received.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import repeat
from urllib.parse import parse_qs
from zlib import crc32

from httptools import HttpParserError, HttpRequestParser

# A pattern whose period is no power of two: bytes that a buffer loses or repeats show in the checksum.
PIECE = bytes(number % 251 for number in range(65536))


def answer(path: str, received: int = 0, checksum: int = 0) -> bytes:
    """The body with which the origin answers ``path``."""
    return json.dumps({"path": path, "received": received, "checksum": checksum}).encode()


def pieces(size: int) -> Iterator[bytes]:
    """A body of ``size`` bytes, as it is sent."""
    whole, rest = divmod(size, len(PIECE))
    yield from repeat(PIECE, whole)
    if rest:
        yield PIECE[:rest]


class Connection(asyncio.Protocol):
    """One connection; one request at a time, as a proxy sends them."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def on_message_begin(self) -> None:
        self._url = b""
        self._received = self._checksum = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        self._path, _, query = self._url.decode("latin-1").partition("?")
        asked = {name: float(values[0]) for name, values in parse_qs(query).items()}
        self._wait, self._size = asked.get("wait", 0.0), int(asked.get("size", -1))
        self._pause, self._pause_at = asked.get("pause", 0.0), asked.get("at", 0.0)
        self._keep = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        self._checksum = crc32(body, self._checksum)
        if self._pause and self._received >= self._pause_at:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause, self._read_on)
            self._pause = 0.0

    def on_message_complete(self) -> None:
        if self._wait or self._size >= 0:
            self._task = asyncio.get_running_loop().create_task(self._take_time())
        else:
            self._finish(answer(self._path, self._received, self._checksum))

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _head(self, length: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length

    def _finish(self, body: bytes) -> None:
        self._transport.write(self._head(len(body)) + body)
        if not self._keep:
            self._transport.close()

    async def _take_time(self) -> None:
        await asyncio.sleep(self._wait)
        if self._size < 0:
            self._finish(answer(self._path, self._received, self._checksum))
            return
        self._transport.write(self._head(self._size))
        for piece in pieces(self._size):
            self._transport.write(piece)
            await self._may_write.wait()
        if not self._keep:
            self._transport.close()


async def listen(port: int = 0, host: str = "127.0.0.1") -> asyncio.Server:
    """An origin in this loop."""
    return await asyncio.get_running_loop().create_server(Connection, host, port, backlog=4096)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _serve(port: int) -> None:
    async with await listen(port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
