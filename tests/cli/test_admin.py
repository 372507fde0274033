"""The client of the admin listener."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from apigw.cli.admin import Admin, NotAnswered


@pytest.mark.parametrize(("status", "body"), [(404, b"<html>"), (200, b"<html>"), (200, b"[]"), (500, b'"no"')])
def test_another_program_is_no_gateway(status: int, body: bytes) -> None:
    """Whatever it answers: one that listens at the address by chance, or a wrong `--admin`."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request).start()
        admin = Admin("127.0.0.1", server.server_port)
        with pytest.raises(NotAnswered) as raised:
            admin.get("/limits")
    assert str(raised.value) == f"{admin}/limits: what answers there is no gateway (status {status})"
