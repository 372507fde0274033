"""A client that sends what it is told to, byte by byte, and reads answers strictly (RFC 9112)."""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import Any

from attrs import define

Address = tuple[str, int]
PATIENCE = 15.0
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)


class Truncated(Exception):
    """The connection ended before the answer did. ``so_far`` is what had come of its body."""

    def __init__(self, so_far: bytes) -> None:
        super().__init__(f"closed after {len(so_far)} bytes of the body")
        self.so_far = so_far


class Malformed(Exception):
    """What came is no answer."""


@define
class Answer:
    """``headers`` are pairs in order, names in lower case."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def get(self, name: str) -> str | None:
        """The one field of that name. Two are a failure of the test."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem document, which must be one, and have the same id as the header."""
        assert self.get("content-type") == "application/problem+json", self
        document = self.json
        assert document["status"] == self.status
        assert document["type"] == "about:blank"
        assert document["title"]
        assert document["request_id"] == self.get("x-request-id")
        assert "127.0.0.1" not in document["detail"]
        assert "Traceback" not in document["detail"]
        code: str = document["code"]
        return code


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)")


class Client:
    """One connection."""

    def __init__(
        self, address: Address | str, tls: ssl.SSLContext | None = None, server_name: str = "localhost"
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        self.unread = b""
        self.trailers: list[tuple[str, str]] | None = None
        """Set to take those of the next chunked body."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close so that the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes | str) -> Client:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def request(self, method: str, target: str, *headers: str, body: bytes = b"", host: str = "localhost") -> Answer:
        """``headers`` are whole lines. A body gets its Content-Length."""
        self.send(encode(method, target, *headers, body=body, host=host))
        return self.answer(method)

    def get(self, target: str, *headers: str) -> Answer:
        return self.request("GET", target, *headers)

    def answer(self, method: str = "GET") -> Answer:
        """Read a whole answer. Raises ``Truncated``, ``Malformed``."""
        answer = self.head()
        answer.body = self.body(answer, method)
        return answer

    def head(self) -> Answer:
        while b"\r\n\r\n" not in self.unread:
            if not self.more():
                raise Truncated(b"") if not self.unread else Malformed(f"ended in the head: {self.unread!r}")
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = _STATUS_LINE.fullmatch(first)
        if status is None:
            raise Malformed(repr(first))
        headers = []
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise Malformed(repr(line))
            headers.append((field[1].decode().lower(), field[2].decode("latin-1")))
        return Answer(int(status[1]), status[2].decode("latin-1"), headers)

    def body(self, answer: Answer, method: str = "GET") -> bytes:
        """The rest of an answer, by the framing that its head gives: RFC 9112 §6.3."""
        length, coding = answer.get("content-length"), answer.get("transfer-encoding")
        if length is not None and coding is not None:
            raise Malformed("two framings")
        if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
            return b""
        if coding is not None:
            if coding != "chunked":
                raise Malformed(coding)
            body = b""
            while (chunk := self.chunk(body)) is not None:
                body += chunk
            return body
        if length is not None:
            return self.take(int(length), b"")
        while self.more():
            pass
        body, self.unread = self.unread, b""
        return body

    def chunk(self, before: bytes = b"") -> bytes | None:
        """The next chunk of a chunked body, or None after the last."""
        while b"\r\n" not in self.unread:
            if not self.more():
                raise Truncated(before)
        size, _, self.unread = self.unread.partition(b"\r\n")
        if not re.fullmatch(rb"[0-9a-fA-F]+", size):
            raise Malformed(f"chunk size {size!r}")
        if not int(size, 16) and self.trailers is not None:
            while b"\r\n" not in self.unread or not (self.unread.startswith(b"\r\n") or b"\r\n\r\n" in self.unread):
                if not self.more():
                    raise Truncated(before)
            block, _, self.unread = (b"\r\n" + self.unread).partition(b"\r\n\r\n")
            for line in block.split(b"\r\n")[1:]:
                field = _FIELD.fullmatch(line)
                if field is None:
                    raise Malformed(repr(line))
                self.trailers.append((field[1].decode(), field[2].decode("latin-1")))
            return None
        data = self.take(int(size, 16), before)
        if self.take(2, before + data) != b"\r\n":
            raise Malformed("a chunk does not end")
        return data or None

    def take(self, size: int, before: bytes) -> bytes:
        parts = [self.unread]
        have = len(self.unread)
        while have < size:
            self.unread = b""
            if not self.more():
                raise Truncated(before + b"".join(parts))
            parts.append(self.unread)
            have += len(self.unread)
        whole = b"".join(parts)
        self.unread = whole[size:]
        return whole[:size]

    def more(self) -> bool:
        """Read once more. False at the end of the connection, however it ended."""
        try:
            data = self.socket.recv(262144)
        except (ConnectionResetError, ssl.SSLError):
            return False
        self.unread += data
        return bool(data)

    def is_closed(self) -> bool:
        """Wait until the other side has closed, having sent nothing more."""
        return not self.more() and not self.unread


def encode(method: str, target: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"
