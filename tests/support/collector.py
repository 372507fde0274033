"""A collector of traces: takes OpenTelemetry's protocol over HTTP, and reads it with the official classes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def values(attributes: Any) -> dict[str, str | int]:
    return {each.key: _value(each) for each in attributes}


def _value(attribute: KeyValue) -> str | int:
    value = attribute.value
    return value.string_value if value.HasField("string_value") else value.int_value


def spans_in(body: bytes) -> list[Span]:
    """Those of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [span for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]


class Collector:
    """Listens on 127.0.0.1 until ``close``. It answers with ``statuses`` first, then with 200."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.statuses: list[int] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                status = collector.statuses.pop(0) if collector.statuses else 200
                if status == 200:
                    collector.bodies.append(body)
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def spans(self) -> list[Span]:
        return list(self._spans())

    def _spans(self) -> Iterator[Span]:
        for body in list(self.bodies):
            yield from spans_in(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
