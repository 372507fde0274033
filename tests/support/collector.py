"""A collector of traces: takes OpenTelemetry's protocol over HTTP, and reads it with the official classes."""

from __future__ import annotations

import gzip
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.redis_server import free_port
from support.waiting import eventually


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
                    packed = self.headers["content-encoding"] == "gzip"
                    collector.bodies.append(gzip.decompress(body) if packed else body)
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


@contextmanager
def rotel(directory: Path, onward: str) -> Iterator[str]:
    """The URL of a collector of its own kind, from the package ``rotel``, which sends all to the one at ``onward``."""
    (specification,) = find_spec("rotel").submodule_search_locations  # type: ignore[union-attr,misc]  # it is there
    grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [f"{specification}/rotel-agent", "start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
    command += ["--otlp-exporter-endpoint", onward, "--otlp-grpc-endpoint", grpc, "--otlp-http-endpoint", http]
    command += ["--pid-file", str(directory / "rotel.pid"), "--log-file", str(directory / "rotel.log")]
    with (directory / "rotel.out").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            host, _, port = http.partition(":")
            eventually(lambda: socket.create_connection((host, int(port))).close() is None)
            yield f"http://{http}"
        finally:
            process.kill()
