"""Scripted services: functions from what was received to a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json import dumps
from typing import Any

from attrs import Factory, frozen


@frozen
class Received:
    """A request as a service has got it. ``headers`` are pairs, with names in lower case."""

    method: str
    path: str
    """With the query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """The first value of a header; None if there is none."""
        return next((value for each, value in self.headers if each == name.lower()), None)


@frozen
class Reply:
    status: int = 200
    headers: Mapping[str, str] = Factory(dict)
    body: bytes | str = b""

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


Script = Callable[[Received], Reply] | Reply
"""What a service does: for each request, or always the same."""


def echo(received: Received) -> Reply:
    """Says what came, as JSON: method, path, headers, body."""
    document: dict[str, Any] = {
        "method": received.method,
        "path": received.path,
        "headers": dict(received.headers),
        "body": received.body.decode("utf-8", "replace"),
    }
    return Reply(200, {"Content-Type": "application/json"}, dumps(document))


class Service:
    """One scripted service. ``received`` are its requests so far."""

    def __init__(self, name: str, script: Script, port: int) -> None:
        self.name = name
        self.script = script
        self.port = port
        self.received: list[Received] = []

    def reply(self, received: Received) -> Reply:
        self.received.append(received)
        script = self.script
        return script if isinstance(script, Reply) else script(received)
