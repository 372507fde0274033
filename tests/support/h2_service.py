"""A service that speaks HTTP/2, on the ``h2`` library's state machine, which complains of whatever is out of order."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.settings
from attrs import Factory, define
from h2.events import StreamReset
from hyperframe.frame import GoAwayFrame

Fields = list[tuple[str, str]]


@define(eq=False)
class Received:
    """A request on its stream, as it comes in. What is answered goes through it: to nobody once the caller has reset
    the stream, which may come in one piece with the request."""

    connection: H2Conversation
    stream: int
    headers: Fields
    body: bytearray = Factory(bytearray)
    trailers: Fields = Factory(list)
    ended: bool = False
    refused: bool = False
    """By the service, which looks at nothing more of it: it may belong to another test by then."""

    @property
    def reset(self) -> int | None:
        """The code with which the caller has reset it."""
        return self.connection.resets.get(self.stream)

    def get(self, name: str) -> str | None:
        values = [value for each, value in self.headers if each == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def target(self) -> str | None:
        return self.get(":path")

    def answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        self.start(status, ("content-length", str(len(body))), *headers, end=not body)
        if body:
            self.send(body, end=True)

    def start(self, status: int, *headers: tuple[str, str], end: bool = False) -> None:
        if self.reset is None:
            self.connection.state.send_headers(self.stream, [(":status", str(status)), *headers], end_stream=end)
            self.connection.flush()

    def send(self, data: bytes, end: bool = False) -> None:
        """As the windows allow, which are waited for."""
        connection = self.connection
        at = 0
        while (at < len(data) or not data) and self.reset is None:
            room = min(
                connection.state.local_flow_control_window(self.stream),
                connection.state.max_outbound_frame_size,
                len(data) - at,
            )
            if data and room <= 0:
                connection.receive()
                continue
            connection.state.send_data(self.stream, data[at : at + room], end_stream=end and at + room == len(data))
            connection.flush()
            at += room
            if not data:
                return

    def end(self, *trailers: tuple[str, str]) -> None:
        if self.reset is None:
            self.connection.state.send_headers(self.stream, trailers, end_stream=True)
            self.connection.flush()

    def refuse(self, code: int) -> None:
        if self.reset is None:
            self.refused = True
            self.connection.state.reset_stream(self.stream, code)
            self.connection.flush()


Behaviour = Callable[[Received], object]


def echo(received: Received) -> None:
    """Answers with what came, as JSON."""
    if received.ended:
        document = {"headers": received.headers, "body": received.body.decode("latin-1")}
        received.answer(200, ("content-type", "application/json"), body=json.dumps(document).encode())


class H2Conversation:
    """A service's side of one connection. One thread reads it and answers, and calls ``behave`` with each event."""

    def __init__(self, service: H2Service, connected: socket.socket) -> None:
        self.service = service
        self.socket = connected
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, Received] = {}
        self.resets: dict[int, int] = {}
        self.gone = False
        self.gives_back = True
        """Whether what is read makes room for more."""
        self.state.initiate_connection()
        if service.most_streams is not None:
            self.state.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: service.most_streams})
        if service.largest_head is not None:
            self.state.update_settings({h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: service.largest_head})
        self.flush()

    def flush(self) -> None:
        with suppress(OSError):
            self.socket.sendall(self.state.data_to_send())

    def receive(self) -> None:
        try:
            data = self.socket.recv(262144)
        except OSError:
            data = b""
        if not data:
            self.gone = True
            raise ConnectionError("gone")
        events = self.state.receive_data(data)
        self.resets |= {each.stream_id: int(each.error_code) for each in events if isinstance(each, StreamReset)}
        for event in events:
            self._happened(event)
        self.flush()

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.stream_id is not None
            assert event.headers is not None
            fields = [(str(name), str(value)) for name, value in event.headers]
            received = Received(self, event.stream_id, fields, ended=event.stream_ended is not None)
            self.streams[event.stream_id] = received
            self.service.requests.append(received)
            self._behave(received)
        elif isinstance(event, h2.events.DataReceived):
            received = self.streams[event.stream_id]
            received.body += event.data
            if self.service.behave_on_data:
                self._behave(received)
            if self.gives_back and event.flow_controlled_length:
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            assert event.headers is not None
            self.streams[event.stream_id].trailers = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            received = self.streams[event.stream_id]
            if not received.ended:
                received.ended = True
                self._behave(received)

    def _behave(self, received: Received) -> None:
        if not received.refused:
            self.service.behave(received)

    def say_goodbye(self, last: int) -> None:
        """By a frame of one's own: the library would say nothing more."""
        self.socket.sendall(GoAwayFrame(0, last_stream_id=last).serialize())

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class H2Service:
    """Listens on a port of its own until ``close``. ``behave`` may be replaced at any time."""

    def __init__(
        self,
        behave: Behaviour = echo,
        tls: ssl.SSLContext | None = None,
        most_streams: int | None = None,
        port: int = 0,
        largest_head: int | None = None,
    ) -> None:
        self.behave = behave
        self.behave_on_data = False
        """Whether ``behave`` is called for pieces of a body, too."""
        self.requests: list[Received] = []
        self.failures: list[BaseException] = []
        self.conversations: list[H2Conversation] = []
        self.most_streams = most_streams
        self.largest_head = largest_head
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.close_connections()

    def close_connections(self) -> None:
        for conversation in self.conversations:
            conversation.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connected,), daemon=True).start()

    def _converse(self, connected: socket.socket) -> None:
        connected.settimeout(60)
        try:
            if self._tls is not None:
                connected = self._tls.wrap_socket(connected, server_side=True)
            conversation = H2Conversation(self, connected)
            self.conversations.append(conversation)
            while True:
                conversation.receive()
        except (ConnectionError, OSError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            connected.close()
