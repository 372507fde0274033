"""Say something to a WebSocket and print what it answers: ``python say.py ws://127.0.0.1:8080/live/echo hello``"""

from __future__ import annotations

import os
import socket
import sys
from base64 import b64encode
from urllib.parse import urlsplit


def say(url: str, text: str) -> str:
    """One text frame there, one back. Raises ``ConnectionError`` where there is no WebSocket."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    with socket.create_connection(address, 10) as connection, connection.makefile("rb") as reader:
        key = b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status = reader.readline().decode("latin-1").strip()
        if " 101 " not in f"{status} ":
            raise ConnectionError(f"no WebSocket there: {status}")
        while reader.readline().strip():
            pass
        payload, mask = text.encode()[:125], os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        connection.sendall(bytes((0x81, 0x80 | len(payload))) + mask + masked)
        _, length = reader.read(2)
        answer = reader.read(length).decode()
        connection.sendall(bytes((0x88, 0x80)) + mask)
        return answer


if __name__ == "__main__":
    try:
        print(say(sys.argv[1], " ".join(sys.argv[2:])))
    except OSError as error:
        sys.exit(f"say.py: {error}")
