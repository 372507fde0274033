"""Services behind the gateway: plain threads, which record what reaches them and answer as a test says."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
"""The answer to a WebSocket handshake, as far as a gateway cares."""


class Gone(Exception):
    """The gateway closed the connection."""


class Received:
    """A request as it arrived. It must be canonical, or reading it fails: RFC 9112, without any leniency."""

    def __init__(self, conversation: Conversation, head: bytes) -> None:
        self.conversation = conversation
        self.raw = head
        first, *lines = head.split(b"\r\n")
        line = re.fullmatch(rb"([A-Z\-]+) (/[\x21-\x7e]*) HTTP/1\.1", first)
        assert line, first
        self.method, self.target = line[1].decode(), line[2].decode()
        self.headers: list[tuple[str, str]] = []
        for field in lines:
            match = re.fullmatch(rb"([!#$%&'*+\-.^_`|~0-9a-z]+): ([\t\x20-\x7e\x80-\xff]*)", field)
            assert match, field
            self.headers.append((match[1].decode(), match[2].decode("latin-1")))
        self.unread = len(self.all("content-length")) + len(self.all("transfer-encoding"))
        assert self.unread < 2

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes in."""
        if not self.unread:
            return
        self.unread = 0
        length = self.get("content-length")
        if length is not None:
            left = int(length)
            while left:
                piece = self.conversation.some(left)
                left -= len(piece)
                yield piece
            return
        assert self.get("transfer-encoding") == "chunked"
        while True:
            size = int(self.conversation.until(b"\r\n"), 16)
            chunk = self.conversation.exactly(size)
            assert self.conversation.exactly(2) == b"\r\n"  # also of trailers there must be none
            if not size:
                return
            yield chunk

    def body(self) -> bytes:
        return b"".join(self.pieces())


class Conversation:
    """A service's side of one connection."""

    def __init__(self, connected: socket.socket, number: int) -> None:
        self.socket = connected
        self.number = number
        self.answered = 0
        self._unread = b""

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone from error

    def answer(self, status: int, *headers: str, body: bytes = b"") -> None:
        """``headers`` are whole lines; the Content-Length is added."""
        lines = [f"HTTP/1.1 {status} Answer", *headers, f"Content-Length: {len(body)}", "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def some(self, most: int = 65536) -> bytes:
        if not self._unread:
            self._fill()
        data, self._unread = self._unread[:most], self._unread[most:]
        return data

    def exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._fill()
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._fill()
        data, _, self._unread = self._unread.partition(end)
        return data

    def wait_for_end(self) -> bool:
        """Until the gateway has closed the connection, without having sent anything more."""
        try:
            self._fill()
        except Gone:
            return True
        return False

    def close(self) -> None:
        self.end()
        self.socket.close()

    def end(self) -> None:
        """Close, for another thread than the connection's own, which may be waiting for the socket."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _fill(self) -> None:
        try:
            data = self.socket.recv(262144)
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self._unread += data


Behaviour = Callable[[Received], object]


def echo(received: Received) -> None:
    """Answers with what came, as JSON."""
    body = received.body()
    document: dict[str, Any] = {
        "method": received.method,
        "target": received.target,
        "headers": received.headers,
        "body": body.decode("latin-1"),
    }
    received.conversation.answer(200, "Content-Type: application/json", body=json.dumps(document).encode())


class Service:
    """Listens on a port of its own until ``close``. ``behave`` may be replaced at any time."""

    def __init__(self, behave: Behaviour = echo, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.behave = behave
        self.requests: list[Received] = []
        self.failures: list[BaseException] = []
        self.accepted = 0
        self._tls = tls
        self._open: set[Conversation] = set()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    @property
    def connections(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Stop listening and cut every connection, as a process does that is killed."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.close_connections()

    def close_connections(self) -> None:
        for conversation in list(self._open):
            conversation.end()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connected, self.accepted), daemon=True).start()

    def _converse(self, connected: socket.socket, number: int) -> None:
        connected.settimeout(60)
        if self._tls is not None:
            try:
                connected = self._tls.wrap_socket(connected, server_side=True)
            except OSError:
                connected.close()
                return
        conversation = Conversation(connected, number)
        self._open.add(conversation)
        try:
            while True:
                received = Received(conversation, conversation.until(b"\r\n\r\n"))
                self.requests.append(received)
                self.behave(received)
                conversation.answered += 1
                assert not received.unread, "a behaviour reads the body or closes"
        except Gone:
            pass
        except BaseException as error:
            if connected.fileno() >= 0:
                self.failures.append(error)
        finally:
            conversation.close()
            self._open.discard(conversation)


def port_nobody_listens_on() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port
