"""Builds the frozen ``Config`` from a document without problems, by its schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve

from apigw.config import addresses, check_targets, endpoints, units
from apigw.config.files import Files, text
from apigw.config.keys import Rule, attribute, may_be_list
from apigw.config.merge import Document
from apigw.config.model import (
    AccessLog,
    AuditLog,
    Balance,
    Config,
    HashedBy,
    Listen,
    Origin,
    Path,
    Route,
    Secret,
    Target,
)


def build(document: Document, files: Files) -> Config:
    """The configuration. Never raises if the document has passed all checks."""
    sections: dict[str, Any] = {}
    for key, value in document.tree.items():
        if value is None or key == "defaults":  # which are filled in
            continue
        rule = document.schema[key]
        if key == "routes":
            sections[key] = tuple(route for entry in value for route in _routes(rule["schema"], entry, files))
        else:
            sections[key] = _value(rule, value, files)
    return Config(
        **_with_added(document.schema, sections),
        reserved=document.reserved,
        origins=dict(_renumbered(document)),
        files=(*document.files, *sorted(files.named)),
        warnings=tuple(document.in_order(document.warnings)),
    )


def _routes(rule: Rule, entry: dict[str, Any], files: Files) -> Iterator[Route]:
    """One for each path."""
    paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
    first: Route = _value(rule, {**entry, "path": paths[0]}, files)
    yield first
    for path in paths[1:]:
        yield evolve(first, path=path)


def _renumbered(document: Document) -> Iterator[tuple[Path, Origin]]:
    """The places of values, by their paths in the configuration.

    Listeners that are null are left out there, and a route has one path.
    """
    listed = document.get("gateway", "listen") or ()
    left_out = [index for index, listen in enumerate(listed) if listen is None]
    numbers: list[list[int]] = []
    for entry in document.get("routes") or ():
        paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        begin = numbers[-1][-1] + 1 if numbers else 0
        numbers.append(list(range(begin, begin + len(paths))))
    for path, origin in document.places.items():
        index = path[2] if left_out and path[:2] == ("gateway", "listen") and len(path) > 2 else None
        if isinstance(index, int):
            if index not in left_out:
                yield (*path[:2], index - sum(each < index for each in left_out), *path[3:]), origin
        elif path[:1] == ("routes",) and len(path) > 1:
            yield from _of_routes(path, numbers[int(path[1])], origin)
        elif path:
            yield path, origin


def _of_routes(path: Path, numbers: Sequence[int], origin: Origin) -> Iterator[tuple[Path, Origin]]:
    below = path[2:]
    if len(numbers) > 1 and below[:1] == ("path",) and len(below) == 2:
        yield ("routes", numbers[int(below[1])], "path"), origin
    elif len(numbers) == 1 or below != ("path",):
        for number in numbers:
            yield ("routes", number, *(("path",) if below[:1] == ("path",) else below)), origin


def _value(rule: Rule, value: Any, files: Files) -> Any:
    if value is None:
        return None
    if "duration" in rule:
        return units.seconds(value)
    if "size" in rule:
        return units.size(value)
    if "share" in rule:
        return units.share(value)
    meta = rule.get("meta", {})
    if "file" in meta:
        return Secret(text(files.data(value))) if "into" in meta else files.absolute(value)
    if "secret" in meta and isinstance(value, str):
        return Secret(value.encode())
    if "plain" in meta:
        return value
    model = meta.get("model")
    if isinstance(value, list):
        return tuple(_value(rule["schema"], entry, files) for entry in value if entry is not None)
    if isinstance(value, dict) and "valuesrules" in rule:
        return _named(rule["valuesrules"], value, files)
    if isinstance(value, dict):
        schema = rule["schema"]
        values = {key: _value(schema.get(key, {}), entry, files) for key, entry in value.items()}
        return _entry(model, _with_added(schema, _with_read(schema, values)), files)
    if model is Listen:
        return Listen(_endpoint(value, files))
    if model is Target:
        return addresses.target(value)
    if model is Balance:
        return Balance(value)
    if model is HashedBy:
        return HashedBy(value)
    if may_be_list(rule) and isinstance(value, str):
        return (value,)
    form = rule.get("form")
    if form == "endpoint":
        return _endpoint(value, files)
    if form == "host:port":
        return addresses.host_and_port(value)
    if form == "route host":
        return addresses.route_host(value)
    if form == "redis url":
        return addresses.redis_url(value)
    return float(value) if rule.get("type") == "number" else value


def _named(rule: Rule, value: dict[str, Any], files: Files) -> tuple[Any, ...]:
    """The entries of a map whose keys are names: objects with their ``name``, or pairs where they are no maps."""
    if "dict" not in rule.get("type", ()):
        return tuple((name, _value(rule, entry, files)) for name, entry in value.items())
    short = rule["meta"].get("short")
    entries = ((name, {short: entry} if isinstance(entry, str) else entry) for name, entry in value.items())
    return tuple(_value(rule, {"name": name, **entry}, files) for name, entry in entries)


def _entry(model: Any, values: dict[str, Any], files: Files) -> Any:
    if model is Target:
        return _target(values)
    if model is Balance:
        return Balance("hash", values["hash"])
    if model is HashedBy:
        ((by, name),) = values.items()
        return HashedBy(by, name)
    if model in (AccessLog, AuditLog) and values.get("file", "-") != "-":
        values["file"] = files.absolute(values["file"])
    if model is Route:
        (values["path"],) = values["path"]
    return model(**{attribute(key): value for key, value in values.items()})


def _target(values: dict[str, Any]) -> Target:
    (key,) = [key for key in check_targets.READ if values.get(key) is not None]
    target = check_targets.READ[key](values[key])
    return evolve(target, weight=values.get("weight", 1), allow_local=values.get("allow_local", False))


def _with_read(schema: Rule, values: dict[str, Any]) -> dict[str, Any]:
    """What was read from a file stands under the key that it is the value of."""
    for key in [key for key in values if "into" in schema.get(key, {}).get("meta", {})]:
        read = values.pop(key)
        if read is not None:
            values[schema[key]["meta"]["into"]] = read
    return values


def _with_added(schema: Rule, values: dict[str, Any]) -> dict[str, Any]:
    """The keys that policies have added become values of the policies' own classes, in ``added``."""
    owned: dict[Any, dict[str, Any]] = {}
    for key, rule in schema.items():
        owner = rule["meta"].get("owner")
        if owner is not None and key in values:
            owned.setdefault(owner, {})[key] = values.pop(key)
    made = [owner(**held) for owner, held in owned.items()]
    added = tuple(each for each in made if each != type(each)())
    return {**values, "added": added} if added else values


def _endpoint(value: str, files: Files) -> str:
    endpoint = endpoints.parse(value)
    names = [*endpoint.files, *([endpoint.get("address")] if endpoint.kind == "unix" else [])]
    return value if all(map(os.path.isabs, names)) else endpoint.absolute(files.absolute("."))
