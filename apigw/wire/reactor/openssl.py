# Compiled: see docs/decisions/compiled.md
"""The four calls of OpenSSL that each record takes, without what pyOpenSSL does around them.

A method of its ``Connection`` takes some 10,000 instructions more than the call of the library in it. So these calls go
to the same library by pyOpenSSL's own binding. What is out of the ordinary is left to pyOpenSSL, which raises it.
"""

from __future__ import annotations

from typing import Any, Final, final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

LARGEST: Final = 16384
"""Bytes of text in a record (RFC 8446 §5.1)."""
_ROOM: Final = 4 * LARGEST

_room: Final[Any] = ffi.new("char[]", _ROOM)
"""For all connections, one after the other: what is read is copied from here at once."""
_unpack: Final[Any] = ffi.unpack
_from_buffer: Final[Any] = ffi.from_buffer
_ssl_read: Final[Any] = lib.SSL_read
_ssl_write: Final[Any] = lib.SSL_write
_bio_read: Final[Any] = lib.BIO_read
_bio_write: Final[Any] = lib.BIO_write


@final
class Encryption:
    """Reads and writes through a connection that has no socket."""

    def __init__(self, connection: SSL.Connection) -> None:
        anything: Any = connection
        self._connection = anything
        self._ssl = anything._ssl
        self._in = anything._into_ssl
        self._out = anything._from_ssl

    def put(self, data: bytes) -> None:
        """Give OpenSSL what has come from the other side."""
        if _bio_write(self._in, data, len(data)) != len(data):
            raise MemoryError("OpenSSL has no room for what has come")

    def text(self) -> bytes:
        """The text of the next record. Raises what ``Connection.recv`` raises."""
        size = _ssl_read(self._ssl, _room, LARGEST)
        if size <= 0:
            self._connection._raise_ssl_error(self._ssl, size)
        text: bytes = _unpack(_room, size)
        return text

    def encrypt(self, data: bytes) -> None:
        """Make records of it. Raises what ``Connection.send`` raises."""
        size = len(data)
        sent = self._written(_ssl_write(self._ssl, data, size))
        if sent < size:
            at = _from_buffer("char[]", data)
            while sent < size:  # a record at a time
                sent += self._written(_ssl_write(self._ssl, at + sent, size - sent))

    def _written(self, size: int) -> int:
        if size <= 0:
            self._connection._raise_ssl_error(self._ssl, size)
        return size

    def taken(self) -> list[bytes]:
        """What is to be sent to the other side, in pieces."""
        pieces: list[bytes] = []
        while True:
            size: int = _bio_read(self._out, _room, _ROOM)
            if size <= 0:
                return pieces  # there is no more: a BIO in memory fails for no other reason
            pieces.append(_unpack(_room, size))
            if size < _ROOM:
                return pieces
