"""What a configuration has, without its values: to say which parts of it a reload has changed.

Of the configuration before, a gateway that runs has no files any more, and is to keep no secrets for this. So it keeps
digests. ``config.changes``, for ``apigw diff``, has the files of both, and shows what changed in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import attrs
from attrs import frozen

from apigw.config.model import Config, Secret

_LISTED = ("services", "routes")


@frozen
class Outline:
    """``digest`` is that of the whole, without secrets. ``parts`` are digests by names, secrets included: they are for
    comparison alone, and stay in memory."""

    digest: str
    parts: Mapping[str, str]

    def changed_to(self, new: Outline) -> list[str]:
        """Lines that begin with ``added:``, ``removed:`` or ``changed:``."""
        lines = [
            f"{'changed' if name in self.parts else 'added'}: {name}"
            for name, digest in new.parts.items()
            if self.parts.get(name) != digest
        ]
        return lines + [f"removed: {name}" for name in self.parts if name not in new.parts]


FEW = 2000
"""Routes up to which there is always an outline. Of 10,000 it takes a second, which a start waits for."""


def outline_of(config: Config) -> Outline | None:
    """None for a configuration with many routes, unless there is an audit log."""
    if config.gateway.audit_log is None and len(config.routes) > FEW:
        return None
    parts = dict(_parts(config))
    whole = "\n".join(f"{name} {_text(value, masked=True)}" for name, value in sorted(parts.items()))
    digest = f"sha256:{_digest(whole)}"
    return Outline(digest, {name: _digest(_text(value, masked=False)) for name, value in parts.items()})


def _parts(config: Config) -> Iterator[tuple[str, Any]]:
    """Names and values: each key of the gateway, each service, each route, each other section."""
    for name, value in _fields(config.gateway):
        yield f"gateway.{name}", value
    for service in config.services:
        yield f"services.{service.name}", service
    seen: dict[str, int] = {}
    for route in config.routes:
        name = route.name if route.name.endswith(route.path) else f"{route.name} {route.path}"
        seen[name] = number = seen.get(name, 0) + 1
        yield f"routes.{name}" + (f" #{number}" if number > 1 else ""), route
    for name, value in _fields(config):
        if name not in ("gateway", *_LISTED) and value is not None:
            yield name, value


def _fields(of: Any) -> Iterator[tuple[str, Any]]:
    """The values that count, also those of policies, without defaults."""
    for each in attrs.fields(type(of)):
        value = getattr(of, each.name)
        if each.name == "added":
            for added in value:
                yield from _fields(added)
        elif each.eq and not _is_default(each, value):
            yield each.name.rstrip("_"), value


def _is_default(field: Any, value: Any) -> bool:
    return not isinstance(field.default, attrs.Factory) and bool(value == field.default)  # type: ignore[arg-type]  # a class to attrs' stubs


def _text(value: Any, masked: bool) -> str:
    """The same for equal values, whatever process made them."""
    if isinstance(value, Secret):
        return "…" if masked else value.value.hex()
    if attrs.has(type(value)):
        held = [
            f"{each.name}={_text(getattr(value, each.name), masked)}" for each in attrs.fields(type(value)) if each.eq
        ]
        return f"{type(value).__name__}({', '.join(held)})"
    if isinstance(value, tuple | list):
        return f"({', '.join(_text(each, masked) for each in value)})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_text(each, masked) for each in value))}}}"
    return repr(value)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
