"""A sample service on asyncio: server-sent events and a WebSocket echo, by hand. ``python live.py PORT``"""

from __future__ import annotations

import asyncio
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from base64 import b64encode
from hashlib import sha1
from time import strftime

MAX_FRAME = 1 << 20
CONTINUATION, CLOSE, PING, PONG = 0, 8, 9, 10


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    """One request a connection: enough for a sample."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        path = line.split()[1].partition("?")[0]
        if path == "/clock":
            await clock(writer)
        elif path == "/echo" and headers.get("upgrade", "").lower() == "websocket":
            await echo(reader, writer, headers["sec-websocket-key"])
        else:
            body = b"ok\n" if path == "/health" else b"there are /clock and, for WebSockets, /echo\n"
            status = b"200 OK" if path == "/health" else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )
            await writer.drain()
    except (IncompleteReadError, ConnectionError, LookupError, asyncio.LimitOverrunError):
        return
    finally:
        writer.close()


async def clock(writer: StreamWriter) -> None:
    """An event a second, until the client leaves."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n")
    number = 0
    while not writer.is_closing():
        number += 1
        writer.write(f"id: {number}\nevent: tick\ndata: {strftime('%H:%M:%S')}\n\n".encode())
        await writer.drain()
        await asyncio.sleep(1)


async def echo(reader: StreamReader, writer: StreamWriter, key: str) -> None:
    """RFC 6455: each frame goes back as it came, a ping as a pong, until a close."""
    accept = b64encode(sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )
    while True:
        first, second = await reader.readexactly(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        if length > MAX_FRAME or not second & 128:  # too large, or not masked as a client's must be
            return
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(length)))
        opcode = first & 15
        if opcode != PONG:
            writer.write(frame(first & 0xF0 | (PONG if opcode == PING else opcode), payload))
            await writer.drain()
        if opcode == CLOSE:
            return


def frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    long = size > 0xFFFF
    return bytes((first, 127 if long else 126)) + size.to_bytes(8 if long else 2) + payload


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
