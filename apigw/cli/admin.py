"""A client of the admin listener."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from apigw.config import endpoints

TIMEOUT = 10.0
"""Timeout of the socket, in seconds. A healthy gateway answers in some milliseconds."""

Document = Mapping[str, Any]


class NotAnswered(Exception):
    """There was no answer, or an error. The message is printed."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@frozen
class Admin:
    """The address of an admin listener: ``path`` of a unix socket, or ``host`` and ``port``.

    ``doubt`` says why another address may be meant, where nobody answers.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    doubt: str = field(default="", eq=False)

    @classmethod
    def parse(cls, text: str) -> Admin:
        """Parse ``http://HOST:PORT``, ``HOST:PORT`` or ``unix:PATH``. Raises ``ValueError``."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(path=text.removeprefix("unix:"))
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/") or parts.query:
            raise ValueError(f"{text!r} is neither http://HOST:PORT nor unix:PATH")
        return cls(parts.hostname, parts.port)

    @classmethod
    def of_endpoint(cls, text: str | None) -> Admin:
        """The address for ``gateway.admin``. Raises ``ValueError`` for null, systemd, and port 0."""
        if text is None:
            raise ValueError("the configuration has no admin listener (gateway.admin is null)")
        endpoint = endpoints.parse(text)
        if endpoint.kind == "unix":
            return cls(path=endpoint.get("address"))
        port = int(endpoint.get("port", "0"))
        if endpoint.kind not in ("tcp", "tcp6") or not port:
            raise ValueError(f"the configuration does not say where {text!r} listens: give --admin")
        interface = endpoint.get("interface") or ("::" if endpoint.kind == "tcp6" else "0.0.0.0")
        return cls({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface), port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"http://{host}:{self.port}"

    def get(self, path: str) -> Any:
        """GET the JSON at ``path``. Raises ``NotAnswered``."""
        return self._ask("GET", path, None, {})

    def post(self, path: str, document: Document, token: str) -> Any:
        """POST ``document`` with the token, and return the JSON of the answer. Raises ``NotAnswered``."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self._ask("POST", path, json.dumps(document), headers)

    def _ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Any:
        connection: http.client.HTTPConnection
        if self.path:
            connection = _UnixConnection(self.path)
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise NotAnswered(f"{self}{path}: no answer from a gateway: {why}{self.doubt}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise NotAnswered(f"{self}{path}: what answers there is no gateway (status {response.status})")
        if response.status != 200:
            raise NotAnswered(f"{self}{path}: {response.status}: {answer.get('detail', answer)}")
        return answer
