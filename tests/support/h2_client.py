"""An HTTP/2 client, blocking, on the ``h2`` library's state machine, which complains of whatever is out of order."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
from attrs import Factory, define
from hyperframe.frame import Frame, PingFrame

from support.client import PATIENCE, Address, Answer


@define
class Exchange:
    """What came on one stream. ``reset`` is the code with which it was ended, if it was."""

    answer: Answer | None = None
    body: bytearray = Factory(bytearray)
    trailers: list[tuple[str, str]] = Factory(list)
    ended: bool = False
    reset: int | None = None
    interim: list[int] = Factory(list)

    @property
    def whole(self) -> Answer:
        assert self.answer is not None
        assert self.ended
        assert self.reset in (None, 0)
        self.answer.body = bytes(self.body)
        return self.answer


class H2Client:
    """One connection; ``streams`` holds what came on each."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
            secure = tls.wrap_socket(self.socket, server_hostname="localhost")
            assert secure.selected_alpn_protocol() == "h2"
            self.socket = secure
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.streams: dict[int, Exchange] = {}
        self.goaway: int | None = None
        self.closed = False
        self.give_back = True
        """Whether what is read makes room for more."""
        self.flush()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def begin(self, method: str, path: str, *headers: tuple[str, str], end: bool = True) -> int:
        """Send the head of a request. Returns the stream's number."""
        number = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path), *headers]
        self.connection.send_headers(number, head, end_stream=end)
        self.streams[number] = Exchange()
        self.flush()
        return number

    def send(self, number: int, data: bytes, end: bool = False) -> None:
        """A piece of a body, as the windows allow."""
        at = 0
        while at < len(data) or not data:
            room = min(
                self.connection.local_flow_control_window(number),
                self.connection.max_outbound_frame_size,
                len(data) - at,
            )
            if data and room <= 0:
                self.receive()
                if self.streams[number].ended or self.streams[number].reset is not None:
                    return
                continue
            last = at + room == len(data)
            self.connection.send_data(number, data[at : at + room], end_stream=end and last)
            self.flush()
            at += room
            if not data:
                break

    def end(self, number: int, *trailers: tuple[str, str]) -> None:
        """The end of a body, by its trailers."""
        self.connection.send_headers(number, trailers, end_stream=True)
        self.flush()

    def request(self, method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> Answer:
        number = self.begin(method, path, *headers, end=not body)
        if body:
            self.send(number, body, end=True)
        return self.finish(number)

    def finish(self, number: int) -> Answer:
        """The whole answer on a stream."""
        exchange = self.streams[number]
        self.until(lambda: exchange.ended or exchange.reset is not None)
        return exchange.whole

    def cancel(self, number: int) -> None:
        self.connection.reset_stream(number, 8)
        self.flush()

    def until(self, condition: Callable[[], object]) -> None:
        """Read until it is true. Fails if the connection ends before."""
        while not condition():
            self.receive()
            assert not self.closed or condition(), f"closed; GOAWAY {self.goaway}"

    def receive(self) -> None:
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            self._received(event)
        self.flush()

    def frames_to_the_end(self) -> list[Frame]:
        """What still comes, each PING answered. The library's state machine takes nothing more after a GOAWAY."""
        frames: list[Frame] = []
        data = b""
        while more := self.socket.recv(65536):
            data += more
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                frame, length = Frame.parse_frame_header(memoryview(data[:9]))
                frame.parse_body(memoryview(data[9 : 9 + length]))
                data = data[9 + length :]
                frames.append(frame)
                if isinstance(frame, PingFrame) and not frame.flags:
                    answer = PingFrame(0, frame.opaque_data)
                    answer.flags.add("ACK")
                    self.socket.sendall(answer.serialize())
        assert not data
        return frames

    def _received(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
        number = getattr(event, "stream_id", None)
        exchange = self.streams.get(number or 0)
        if exchange is None or number is None:
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            exchange.interim.append(int(str(event.headers[0][1])))
        elif isinstance(event, h2.events.ResponseReceived):
            pairs = [(str(name), str(value)) for name, value in event.headers]
            exchange.answer = Answer(int(pairs[0][1]), "", pairs[1:])
        elif isinstance(event, h2.events.DataReceived):
            exchange.body += event.data
            if self.give_back:
                self.connection.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.TrailersReceived):
            assert event.headers is not None
            exchange.trailers = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            exchange.ended = True
        elif isinstance(event, h2.events.StreamReset):
            exchange.reset = int(event.error_code)
