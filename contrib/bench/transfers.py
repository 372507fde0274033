"""Large bodies to and from a client that stalls in the middle, over plain sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from zlib import crc32

from httptools import HttpResponseParser

from bench.load import Address, encode
from bench.origin import pieces


class TransferFailed(Exception):
    """A body did not arrive as it was sent; the message says what came instead."""


class _Answer:
    """What httptools finds in an answer. ``keep`` collects the body, else it is only counted and summed."""

    def __init__(self, keep: bool) -> None:
        self.parser = HttpResponseParser(self)
        self.received = self.checksum = 0
        self.body = b""
        self.complete = False
        self._keep = keep

    def on_body(self, body: bytes) -> None:
        self.received += len(body)
        self.checksum = crc32(body, self.checksum)
        if self._keep:
            self.body += body

    def on_message_complete(self) -> None:
        self.complete = True

    async def read(self, connected: socket.socket) -> bool:
        """Read once; whether there may be more."""
        data = await asyncio.get_running_loop().sock_recv(connected, 262144)
        if not data:
            raise TransferFailed(f"the connection was closed after {self.received:,} bytes of the answer's body")
        self.parser.feed_data(data)
        return not self.complete

    def check_status(self) -> None:
        status = self.parser.get_status_code()
        if status != 200:
            raise TransferFailed(f"answered {status} {self.body[:200].decode(errors='replace')}")


def checksum_of(size: int) -> int:
    total = 0
    for piece in pieces(size):
        total = crc32(piece, total)
    return total


async def _connect(address: Address) -> socket.socket:
    connected = socket.socket()
    connected.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connected, address)
    return connected


async def download(address: Address, path: str, size: int, stall: float, stalled: asyncio.Event | None = None) -> None:
    """GET ``size`` bytes, and read nothing for ``stall`` seconds after the first half.

    ``stalled`` is set when that begins. Raises ``TransferFailed`` or ``OSError``.
    """
    answer = _Answer(keep=False)
    with await _connect(address) as connected:
        await asyncio.get_running_loop().sock_sendall(connected, encode(f"{path}?size={size}"))
        has_stalled = False
        while await answer.read(connected):
            if not has_stalled and answer.received >= size // 2:
                has_stalled = True
                if stalled is not None:
                    stalled.set()
                await asyncio.sleep(stall)
    answer.check_status()
    if (answer.received, answer.checksum) != (size, checksum_of(size)):
        raise TransferFailed(f"{answer.received:,} bytes arrived, of {size:,}, or not the same ones")


async def upload(address: Address, path: str, size: int, stall: float, origin_pause: float = 0.0) -> None:
    """PUT ``size`` bytes, and send nothing for ``stall`` seconds after the first half.

    ``origin_pause`` makes the origin stop reading for as long. Raises ``TransferFailed`` or ``OSError``.
    """
    loop = asyncio.get_running_loop()
    answer = _Answer(keep=True)
    query = f"?pause={origin_pause}&at={size // 2}" if origin_pause else ""
    with await _connect(address) as connected:
        await loop.sock_sendall(connected, encode(path + query, "PUT", [("Content-Length", str(size))]))
        sent, has_stalled = 0, False
        for piece in pieces(size):
            await loop.sock_sendall(connected, piece)
            sent += len(piece)
            if not has_stalled and sent >= size // 2:
                has_stalled = True
                await asyncio.sleep(stall)
        while await answer.read(connected):
            pass
    answer.check_status()
    said = json.loads(answer.body)
    if (said["received"], said["checksum"]) != (size, checksum_of(size)):
        raise TransferFailed(f"{said['received']:,} bytes arrived, of {size:,}, or not the same ones")
