"""What a strict reader finds in bytes that claim to be HTTP requests, written from the grammar of RFC 9112.

Nothing here is shared with the program: no llhttp, none of its regular expressions. ``read_all`` says which requests
are in what a client sent; ``Recorder`` is a service that says which reached it, and refuses what is not canonical.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from attrs import define, evolve, field, frozen

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGIT = frozenset(b"0123456789")
HEXDIG = frozenset(b"0123456789ABCDEFabcdef")
VCHAR = frozenset(range(0x21, 0x7F))
OBS_TEXT = frozenset(range(0x80, 0x100))
WHITE = frozenset(b" \t")
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings expect".split()
)
IDENTITY = frozenset(b"x-user-id x-user-roles x-auth-provider".split())
OURS = frozenset(b"x-forwarded-for x-forwarded-proto x-forwarded-host x-request-id".split())

Fields = tuple[tuple[bytes, bytes], ...]


class Malformed(Exception):
    """A strict reader stops here."""


@frozen
class Message:
    """A request. ``target`` is in origin-form. ``complete``: whether its end has come."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    body: bytes
    complete: bool

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each.lower() == name]

    @property
    def asks(self) -> tuple[bytes, bytes, bytes]:
        """What makes two requests the same for whoever answers them."""
        return self.method, self.target, self.body


class Cursor:
    """Reads on from a place in some bytes. ``EOFError`` where they end too early."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def peek(self) -> int:
        if self.at >= len(self.data):
            raise EOFError
        return self.data[self.at]

    def one_of(self, allowed: frozenset[int]) -> int:
        byte = self.peek()
        if byte not in allowed:
            raise Malformed(f"{bytes([byte])!r} at {self.at}")
        self.at += 1
        return byte

    def some(self, allowed: frozenset[int]) -> bytes:
        """All that follows of these bytes; something else must follow them."""
        begin = self.at
        while self.peek() in allowed:
            self.at += 1
        return self.data[begin : self.at]

    def at_least_one(self, allowed: frozenset[int]) -> bytes:
        found = self.some(allowed)
        if not found:
            raise Malformed(f"nothing of what must be at {self.at}")
        return found

    def literal(self, text: bytes) -> None:
        for byte in text:
            self.one_of(frozenset((byte,)))

    def exactly(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise EOFError
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.data[self.at :]


def read_all(data: bytes) -> tuple[list[Message], Message | None]:
    """The complete requests, and the beginning of one that is not complete, or goes wrong in its body."""
    complete: list[Message] = []
    cursor = Cursor(data)
    while True:
        try:
            if data[cursor.at : cursor.at + 2] == b"\r\n":
                cursor.at += 2  # RFC 9112 §2.2
            message = read_message(cursor)
        except (EOFError, Malformed):
            return complete, None
        if not message.complete:
            return complete, message
        complete.append(message)


def read_message(cursor: Cursor) -> Message:
    """RFC 9112 §2.1. Raises ``EOFError`` while the head is not complete, and ``Malformed`` if it never can be."""
    method = cursor.at_least_one(TCHAR)
    cursor.literal(b" ")
    target = cursor.at_least_one(VCHAR)
    cursor.literal(b" HTTP/1.")
    minor = cursor.one_of(DIGIT)
    version = b"1.0" if minor == ord("0") else b"1.1"  # RFC 9110 §6.2: a higher one is the highest that is known
    cursor.literal(b"\r\n")
    fields = tuple(read_fields(cursor))
    message = Message(method, target, version, fields, b"", False)
    check_host(message)
    message = evolve(message, target=origin_form(message))
    length = framing(message)
    if length is None:
        body, complete = read_chunked(cursor)
    else:
        complete = len(cursor.data) - cursor.at >= length
        body = cursor.exactly(length) if complete else cursor.rest()
    return evolve(message, body=body, complete=complete)


def read_fields(cursor: Cursor) -> Iterator[tuple[bytes, bytes]]:
    """RFC 9112 §5, up to and with the empty line."""
    while cursor.peek() != 0x0D:
        name = cursor.at_least_one(TCHAR)
        cursor.literal(b":")
        value = cursor.some(VCHAR | OBS_TEXT | WHITE)
        cursor.literal(b"\r\n")
        yield name, value.strip(b" \t")
    cursor.literal(b"\r\n")


def check_host(message: Message) -> None:
    """RFC 9112 §3.2: once, and in form; HTTP/1.0 may leave it out."""
    hosts = message.values(b"host")
    if len(hosts) > 1 or (not hosts and message.version == b"1.1"):
        raise Malformed("not one Host")
    for host in hosts:
        name, colon, port = host.rpartition(b":")
        if not colon or host.endswith(b"]"):
            name, port = host, b""
        if not set(port) <= DIGIT or not name:
            raise Malformed("a Host that is none")
        if name.startswith(b"["):
            if not (name.endswith(b"]") and set(name[1:-1]) <= HEXDIG | frozenset(b":.")):
                raise Malformed("a Host that is no IPv6")
        elif not set(name) <= VCHAR - frozenset(b'"#/:<>?@[\\]^`{|}'):
            raise Malformed("a Host that is no name")


def origin_form(message: Message) -> bytes:
    """RFC 9112 §3.2. Of the four forms two have a path."""
    target = message.target
    if b"#" in target:
        raise Malformed("a fragment")
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise Malformed("a target without path")
    end = min((place for place in (rest.find(b"/"), rest.find(b"?")) if place >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    port = b"443" if scheme.lower() == b"https" else b"80"
    hosts = message.values(b"host") or [authority]
    if not authority or [with_port(authority, port)] != [with_port(host, port) for host in hosts]:
        raise Malformed("a target that disagrees with the Host")
    return path if path.startswith(b"/") else b"/" + path


def with_port(authority: bytes, default: bytes) -> tuple[bytes, int]:
    """RFC 9110 §4.2.3: an empty port and none are the default."""
    host, colon, port = authority.lower().rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority.lower(), b""
    if not set(port) <= DIGIT:
        raise Malformed("a port that is none")
    return host, int(port or default)


def framing(message: Message) -> int | None:
    """RFC 9112 §6.3: the length of the body, None where it is chunked."""
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if codings:
        if lengths or message.version != b"1.1" or [coding.lower() for coding in codings] != [b"chunked"]:
            raise Malformed("a coding that is not chunked, or not alone")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0] or not set(lengths[0]) <= DIGIT:
        raise Malformed("not one length")
    return int(lengths[0])


def read_chunked(cursor: Cursor) -> tuple[bytes, bool]:
    """RFC 9112 §7.1: the body as far as it goes, and whether that is all of it."""
    body = b""
    try:
        while True:
            size = int(cursor.at_least_one(HEXDIG), 16)
            while cursor.peek() == ord(";"):
                read_extension(cursor)
            cursor.literal(b"\r\n")
            if not size:
                for _ in read_fields(cursor):
                    pass
                return body, True
            body += cursor.data[cursor.at : cursor.at + size]
            cursor.exactly(size)
            cursor.literal(b"\r\n")
    except (EOFError, Malformed):
        return body, False


def read_extension(cursor: Cursor) -> None:
    """RFC 9112 §7.1.1, without its bad white space."""
    cursor.literal(b";")
    cursor.at_least_one(TCHAR)
    if cursor.peek() != ord("="):
        return
    cursor.literal(b"=")
    if cursor.peek() != ord('"'):
        cursor.at_least_one(TCHAR)
        return
    cursor.literal(b'"')
    while cursor.peek() != ord('"'):
        if cursor.peek() == ord("\\"):
            cursor.at += 1
        cursor.one_of(VCHAR | OBS_TEXT | WHITE)
    cursor.literal(b'"')


# What reaches a service.


def check_canonical(message: Message, raw: bytes) -> None:
    """Raise ``Malformed`` unless this is what a gateway may write. ``raw`` is what the message was read from."""
    head = raw[: raw.index(b"\r\n\r\n") + 4]
    lines = [b"%b %b HTTP/1.1" % (message.method, message.target)]
    lines += [b"%b: %b" % field for field in message.fields]
    if head != b"\r\n".join((*lines, b"", b"")):
        raise Malformed("a head that could be written in another way")
    names = [name for name, _ in message.fields]
    if any(name != name.lower() for name in names):
        raise Malformed("a name in capitals")
    if len(message.values(b"host")) != 1 or names[0] != b"host":
        raise Malformed("not one Host, and first")
    allowed = {b"transfer-encoding"}
    if message.values(b"upgrade"):
        if (message.values(b"connection"), message.values(b"upgrade")) != ([b"upgrade"], [b"websocket"]):
            raise Malformed("an upgrade to something else")
        allowed |= {b"connection", b"upgrade"}
    for name in names:
        plain = name.replace(b"_", b"-").replace(b".", b"-")
        if plain in HOP_BY_HOP and name not in allowed:
            raise Malformed(f"a field of another hop: {name!r}")
        if plain in IDENTITY:
            raise Malformed(f"an identity that nobody vouched for: {name!r}")
        of_the_way = plain in OURS or plain.startswith(b"x-forwarded-") or plain in (b"forwarded", b"x-real-ip")
        if of_the_way and (name not in OURS or names.count(name) > 1):
            raise Malformed(f"a field that only the gateway may write, or twice: {name!r}")
    if not set(names) >= OURS:
        raise Malformed("a field of the gateway's is missing")
    if message.values(b"x-forwarded-for") != [b"127.0.0.1"] or message.values(b"x-forwarded-proto") != [b"http"]:
        raise Malformed("somebody else's word on where the request came from")
    if not message.values(b"via")[-1].endswith(b" apigw"):
        raise Malformed("no Via")
    path = message.target.partition(b"?")[0]
    lowered = path.lower()
    if b"//" in path or b"\\" in path or any(text in lowered for text in (b"%2f", b"%5c", b"%00", b"/../", b"/./")):
        raise Malformed("a path that can be read in two ways")
    if message.values(b"transfer-encoding") and message.complete:
        check_canonical_chunks(raw[len(head) :])


def check_canonical_chunks(raw: bytes) -> None:
    """Sizes without leading zeros, no extensions, no trailers."""
    cursor = Cursor(raw)
    while True:
        digits = cursor.at_least_one(HEXDIG)
        cursor.literal(b"\r\n")
        if digits != b"%x" % int(digits, 16):
            raise Malformed("a chunk size that could be written in another way")
        cursor.exactly(int(digits, 16))
        cursor.literal(b"\r\n")
        if digits == b"0":
            return


@define
class Seen:
    """What reached the service, in the order of arrival. ``faults`` is what should not have."""

    complete: list[Message] = field(factory=list)
    begun: list[Message] = field(factory=list)
    faults: list[str] = field(factory=list)


class Recorder:
    """A service in a thread of its own that answers every request with two bytes, and writes down what came."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._bell, self._wake = socket.socketpair()
        for each in (self._listening, self._bell):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._unread: dict[socket.socket, bytes] = {}
        self._seen = Seen()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Seen:
        """All that has come since the last time, once everything that was sent by now is read."""
        self._settled.clear()
        self._wake.send(b"?")
        assert self._settled.wait(15), "the recorder is dead"
        seen, self._seen = self._seen, Seen()
        return seen

    def close(self) -> None:
        self._wake.close()
        self._thread.join(15)
        for each in (self._listening, self._bell, *self._unread):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        asked = False
        while True:
            ready = self._selector.select(0 if asked else None)
            if asked and not ready:
                asked = False
                for unread in self._unread.values():
                    self._note_begun(unread)
                self._settled.set()
            for key, _ in ready:
                connected = key.fileobj
                assert isinstance(connected, socket.socket)
                if connected is self._bell:
                    if not connected.recv(100):
                        return
                    asked = True
                elif connected is self._listening:
                    accepted, _ = connected.accept()
                    accepted.settimeout(15)
                    self._unread[accepted] = b""
                    self._selector.register(accepted, selectors.EVENT_READ)
                else:
                    self._read(connected)

    def _read(self, connected: socket.socket) -> None:
        try:
            data = connected.recv(2**20)
        except OSError:
            data = b""
        self._unread[connected] += data
        if not data or not self._answer(connected):
            self._note_begun(self._unread.pop(connected))
            self._selector.unregister(connected)
            connected.close()

    def _answer(self, connected: socket.socket) -> bool:
        """Take the complete requests from what is unread. False after one that should not have come."""
        while unread := self._unread[connected]:
            cursor = Cursor(unread)
            try:
                message = read_message(cursor)
                check_canonical(message, unread)
            except EOFError:
                return True
            except (Malformed, IndexError, ValueError) as error:
                self._seen.faults.append(f"{error} in {unread!r}")
                return False
            if not message.complete:
                return True
            self._seen.complete.append(message)
            self._unread[connected] = unread[cursor.at :]
            # The client may have left, and the gateway with it. What it had sent by then is still to be read.
            with suppress(OSError):
                connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + b"ok" * (message.method != b"HEAD"))
        return True

    def _note_begun(self, unread: bytes) -> None:
        """A request that was not completed."""
        try:
            message = read_message(Cursor(unread))
        except EOFError:
            return
        except Malformed as error:
            self._seen.faults.append(f"{error} in {unread!r}")
            return
        self._seen.begun.append(message)
