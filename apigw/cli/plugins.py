"""``apigw plugins``: what a configuration uses, with schemas and places, and what else is installed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from apigw.cli.outcome import FOUND, REFUSED, loaded
from apigw.config.model import Config
from apigw.policy.plugins.loading import Unloadable, find, installed, load
from apigw.policy.plugins.model import Plugin, Use, plugins_of
from apigw.policy.plugins.shape import METHODS, POSITION, problems_of


def plugins(options: argparse.Namespace) -> int:
    config = loaded(options.directory)
    if config is None:
        return REFUSED
    configured = plugins_of(config)
    for plugin in configured:
        print("\n".join(_told(config, plugin)))
    others = [line for name in sorted(installed()) for line in _installed(name, configured, options.directory)]
    if others:
        print("installed, and not configured:")
        print("\n".join(others))
    if not configured and not others:
        print("no plugins: `apigw new plugin NAME` makes one")
    return FOUND


def _told(config: Config, plugin: Plugin) -> Iterator[str]:
    assert plugin.place is not None
    found = load(plugin.place)
    yield f"{plugin.name}: {plugin.policy}"
    yield f"  used by: {', '.join(_uses(config, plugin.name)) or 'nothing'}"
    yield f"  on error: {plugin.on_error}; a call may wait {plugin.timeout:g} s"
    yield from _class(found)


def _uses(config: Config, name: str) -> Iterator[str]:
    if name in config.gateway.of(Use).use:
        yield "the gateway"
    yield from (f"service {service.name}" for service in config.services if name in service.of(Use).use)
    yield from dict.fromkeys(f"route {route.name}" for route in config.routes if name in route.of(Use).use)


def _class(found: Any) -> Iterator[str]:
    where = {"on_request": f" ({getattr(found, 'position', POSITION)})"}
    methods = [f"{method}{where.get(method, '')}" for method in METHODS if hasattr(found, method)]
    yield f"  methods: {', '.join(methods)}"
    for key, rule in found.schema.items():
        yield f"  with.{key}: {_rule(rule)}"


def _rule(rule: Mapping[str, Any]) -> str:
    kind = rule.get("type") or next((each for each in ("duration", "size", "share") if each in rule), "anything")
    parts = [kind if isinstance(kind, str) else " or ".join(kind)]
    if rule.get("required"):
        parts.append("required")
    elif "default" in rule:
        parts.append(f"default {rule['default']!r}")
    if "allowed" in rule:
        parts.append("one of " + ", ".join(map(str, rule["allowed"])))
    doc = rule.get("meta", {}).get("doc") if isinstance(rule.get("meta"), dict) else None
    return ", ".join(parts) + (f": {doc}" if doc else "")


def _installed(name: str, configured: tuple[Plugin, ...], directory: str) -> Iterator[str]:
    entry = installed()[name][0]
    if any(plugin.policy in (name, entry.value) for plugin in configured):
        return
    package = "" if entry.dist is None else f", of {entry.dist.name} {entry.dist.version}"
    yield f"{name}: {entry.value}{package}"
    try:
        found = load(find(name, directory))
    except Unloadable as error:
        yield f"  {error}"
        return
    problems = list(problems_of(found))
    yield from (f"  {problem}" for problem in problems)
    if not problems:
        yield from _class(found)
