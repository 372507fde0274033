"""A server that speaks TLS and writes down every byte that it is sent, whatever protocol that is."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

Answer = Callable[[bytes], bytes]


class SecurePeer:
    """``greeting`` is said as soon as a handshake is done; then ``answer`` is asked for each piece that was read."""

    def __init__(self, context: ssl.SSLContext, answer: Answer = lambda _: b"", greeting: bytes = b"") -> None:
        self.accepted = 0
        self.received = b""
        """By the application: what came after the handshakes of all connections."""
        self.shaken: list[ssl.SSLSocket] = []
        """The connections whose handshake was completed."""
        self._context = context
        self._answer = answer
        self._greeting = greeting
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop. Clients must have closed before: what they have sent has all been read then."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._converse, args=(connected,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, plain: socket.socket) -> None:
        plain.settimeout(30)
        with plain, suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connected:
            self.shaken.append(connected)
            connected.sendall(self._greeting)
            while piece := connected.recv(65536):
                self.received += piece
                connected.sendall(self._answer(piece))
