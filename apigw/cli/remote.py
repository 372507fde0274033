"""``apigw limits`` and ``apigw circuits``: a client of the admin listener, and tables of its answers."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from apigw.cli.outcome import FOUND, MISUSE, REFUSED, loaded
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
    """The address of an admin listener: ``path`` of a unix socket, or ``host`` and ``port``."""

    host: str = ""
    port: int = 0
    path: str = ""

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
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotAnswered(f"{self}{path}: no answer from a gateway: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise NotAnswered(f"{self}{path}: {response.status}: {answer.get('detail', answer)}")
        return answer


def limits(options: argparse.Namespace) -> int:
    try:
        document = _admin(options).get("/limits")
    except (NotAnswered, ValueError) as error:
        return _complain(error)
    print(_json(document) if options.json else limits_table(document))
    return FOUND


def circuits(options: argparse.Namespace) -> int:
    if (options.action is None) != (options.service is None):
        print(f"apigw: {options.action} needs the name of a service", file=sys.stderr)
        return MISUSE
    try:
        admin = _admin(options)
        if options.action is None:
            document = admin.get("/circuits")
            shown = document["circuits"]
        else:
            wanted = {"service": options.service, "action": options.action}
            document = admin.post("/circuits", wanted, _token(options))
            shown = [document]
    except (NotAnswered, ValueError, OSError) as error:
        return _complain(error)
    print(_json(document) if options.json else circuits_table(shown))
    return FOUND


def _admin(options: argparse.Namespace) -> Admin:
    """Raises ``ValueError`` where neither the command nor the configuration says where the gateway is."""
    if options.admin is not None:
        return Admin.parse(options.admin)
    config = loaded(options.config)
    if config is None:
        raise ValueError("cannot tell which gateway to ask: give --config or --admin")
    return Admin.of_endpoint(config.gateway.admin)


def _token(options: argparse.Namespace) -> str:
    """Raises ``ValueError`` where there is none."""
    file = options.token_file
    if file is None:
        config = loaded(options.config)
        file = None if config is None else config.gateway.admin_token_file
    if file is None:
        raise ValueError("a change needs the admin token: give --token-file, or set gateway.admin_token_file")
    with open(file, encoding="ascii") as content:
        return content.read().strip()


def _json(document: object) -> str:
    return json.dumps(document, indent=2)


def _complain(error: Exception) -> int:
    print(f"apigw: {error}", file=sys.stderr)
    return REFUSED


def limits_table(document: Document) -> str:
    """The answer of ``/limits`` as a table."""
    store = document["store"]
    where = "Redis" if store["kind"] == "redis" else "memory"
    state = "" if store["up"] else ", which is unavailable"
    counts = f"keys in this gateway: {store['keys']}; checks decided without Redis: {store['fallbacks']}"
    lines = [f"counted in {where}{state}; {counts}"]
    rows = [
        (
            one["endpoint"],
            one["scope"],
            _number(one),
            one.get("algorithm", "-"),
            one["on_store_failure"],
            one["keys"],
            one["violations"],
        )
        for one in document["limits"]
    ]
    headings = ("ENDPOINT", "SCOPE", "LIMIT", "ALGORITHM", "ON STORE FAILURE", "KEYS", "REFUSED")
    return "\n".join([*lines, *table(headings, rows)])


def _number(limit: Document) -> str:
    if "concurrent" in limit:
        return f"{limit['concurrent']} at a time, {limit['taken']} taken"
    return f"{limit['limit']} in {limit['window']:g} s"


def circuits_table(circuits: Sequence[Document]) -> str:
    """The services of ``/circuits`` as a table: a line for each service, followed by one for each target."""
    rows: list[tuple[object, ...]] = []
    for one in circuits:
        if one["state"] is None:
            rows.append((one["service"], "no circuit breaker", *[""] * 5))
        else:
            held = " (by hand)" if one["forced"] else ""
            failed = f"{one['failures']} of {one['total']}"
            since, retry = _seconds(one["since"]), _seconds(one["retry_in"])
            rows.append((one["service"], one["state"] + held, since, failed, retry, one["opened"], one["why"]))
        for target in one["targets"]:
            health = "in use" if target["available"] else "unhealthy" if not target["healthy"] else "ejected"
            rows.append((f"  {target['target']}", health, *[""] * 4, f"{target['connections']} connections"))
    return "\n".join(table(("SERVICE", "STATE", "SINCE", "FAILED", "RETRY IN", "OPENED", "WHY"), rows))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns. Control characters are escaped."""
    texts = [headings, *([_printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
