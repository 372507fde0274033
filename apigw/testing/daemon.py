"""A gateway as it runs in production: ``twistd apigw``, over sockets, and services in threads."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from apigw.testing.gateway import Answer, Gateway, document_of, environ_of, named, scripts_of, write
from apigw.testing.services import Received, Script, Service

PATIENCE = 30.0
"""Seconds until the daemon listens, and for each answer."""
_LISTENING = re.compile(r"\] listening on 127\.0\.0\.1:(\d+): ")


class InDaemon(Gateway):
    """Raises ``RuntimeError``, with the log, if it does not start."""

    def __init__(
        self,
        directory: Path,
        beside: Path,
        plugins: Any,
        services: Mapping[str, Script] | None = None,
        use: Sequence[str] | None = None,
        routes: Sequence[Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        self._servers = [_serving(Service(name, script, 0)) for name, script in scripts_of(services).items()]
        self.services = {server.service.name: server.service for server in self._servers}
        write(directory, document_of(self.services, named(plugins, beside), use, routes, more))
        self._log = directory / "twistd.log"
        path = os.pathsep.join(each for each in sys.path if each)
        environ = {**environ_of(self.services), "PYTHONPATH": path}
        start = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", start, "-n", "--pidfile=", "apigw", "--config", str(directory)]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ)
        try:
            self._port = self._listening()
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        pairs = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(response.status, pairs, content)

    def advance(self, seconds: float) -> None:
        time.sleep(seconds)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _listening(self) -> int:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = _LISTENING.search(self.log)
            if found is not None:
                return int(found[1])
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the gateway does not listen:\n{self.log}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: Service


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024  # a small answer comes at once, head and body, as in memory
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        reply = self.server.service.reply(Received(self.command, self.path, headers, self._body()))
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        return body

    def log_message(self, format: str, *args: Any) -> None: ...


def _serving(service: Service) -> _Server:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.service = service
    service.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
