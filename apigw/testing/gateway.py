"""What a test sees of a gateway, wherever it runs; and how its configuration is written."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Any

from attrs import frozen

from apigw.testing.services import Script, Service, echo

LOOPBACK = "tcp:0:interface=127.0.0.1"


@frozen
class Answer:
    """What a client gets. ``pairs`` are its headers, names in lower case."""

    status: int
    pairs: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Of several of one name, the first."""
        return dict(reversed(self.pairs))

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return loads(self.body)


class Gateway(ABC):
    """A gateway that runs. ``services`` are what is behind it, by name."""

    services: Mapping[str, Service]

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        host: str = "gateway.test",
    ) -> Answer:
        """The answer to a request. In memory, time goes on by itself while it waits."""
        content = body.encode() if isinstance(body, str) else body
        return self.ask(method, path, {"Host": host, **(headers or {})}, content)

    @property
    def service(self) -> Service:
        """The only service."""
        (service,) = self.services.values()
        return service

    @abstractmethod
    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """As ``request``, for a test that is no coroutine."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let so much time pass."""

    @property
    @abstractmethod
    def log(self) -> str:
        """What the gateway has logged so far."""

    @abstractmethod
    def close(self) -> None:
        """The end of the test. Plugins are stopped."""


def named(plugins: Mapping[str, Any] | Iterable[str], beside: Path) -> dict[str, Any]:
    """The section ``plugins``: a policy alone is written out, and files are found ``beside`` the test."""
    given = plugins if isinstance(plugins, Mapping) else {_name_of(policy): policy for policy in plugins}
    out: dict[str, Any] = {}
    for name, entry in given.items():
        written = {"policy": entry} if isinstance(entry, str) else dict(entry)
        file, colon, which = str(written.get("policy", "")).rpartition(":")
        if colon and file.endswith(".py"):
            written["policy"] = f"{os.path.join(beside, file)}:{which}"
        out[name] = written
    return out


def _name_of(policy: str) -> str:
    return policy.rpartition(":")[2].lower()


def document_of(
    services: Mapping[str, Service],
    plugins: Mapping[str, Any],
    use: Sequence[str] | None,
    routes: Sequence[Mapping[str, Any]] | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """A whole configuration. Without ``routes``, all requests go to the first service, and meet all plugins.

    In ``more``, ``services_of`` has services with the targets of several others, and ``service_settings`` further keys
    of services; the rest are sections.
    """
    own = dict(more)
    targets = {name: [f"http://127.0.0.1:{service.port}"] for name, service in services.items()}
    for name, of in own.pop("services_of", {}).items():
        targets[name] = [target for each in of for target in targets[each]]
    settings_of = own.pop("service_settings", {})
    written = {name: {"targets": listed, **settings_of.get(name, {})} for name, listed in targets.items()}
    if routes is None:
        routes = [{"path": "/*", "service": next(iter(services)), "use": list(plugins if use is None else use)}]
    settings = {"listen": [LOOPBACK], "admin": None, "access_log": None, **own.pop("gateway", {})}
    return {"gateway": settings, "services": written, "routes": list(routes), "plugins": dict(plugins), **own}


def environ_of(services: Mapping[str, Service]) -> dict[str, str]:
    """The environment of the configuration: with ``NAME_URL``, the address of each service, for what asks it."""
    urls = {f"{name.upper().replace('-', '_')}_URL": f"http://127.0.0.1:{each.port}" for name, each in services.items()}
    return {**os.environ, **urls}


def scripts_of(services: Mapping[str, Script] | None) -> dict[str, Script]:
    return dict(services) if services else {"main": echo}


def write(directory: Path, document: Mapping[str, Any]) -> None:
    (directory / "gateway.yaml").write_text(json.dumps(document))
