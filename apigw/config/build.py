"""A document without problems → the frozen values of the model, guided by the schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from apigw.config import addresses, endpoints, units
from apigw.config.files import Files, text
from apigw.config.merge import Document
from apigw.config.model import (
    AcceptedKey,
    AccessLog,
    Config,
    JWTVerifier,
    Listen,
    OAuthSigning,
    Origin,
    Path,
    Secret,
    Target,
)
from apigw.config.schema import ROOT, Rule


def build(document: Document, files: Files) -> Config:
    """Raises nothing on a document that all checks have passed."""
    sections: dict[str, Any] = {}
    for key, value in document.tree.items():
        if value is None:
            continue
        if key == "services":
            rule = ROOT[key]["valuesrules"]
            sections[key] = tuple(_value(rule, {"name": name, **entry}, files) for name, entry in value.items())
        else:
            sections[key] = _value(ROOT[key], value, files)
    origins = dict(_renumbered(document))
    return Config(**sections, origins=origins, warnings=tuple(document.in_order(document.warnings)))


def _renumbered(document: Document) -> Iterator[tuple[Path, Origin]]:
    """The places of values, by their paths in the configuration, from which listeners that are null are left out."""
    listed = document.get("gateway", "listen") or ()
    left_out = [index for index, listen in enumerate(listed) if listen is None]
    for path, origin in document.places.items():
        index = path[2] if left_out and path[:2] == ("gateway", "listen") and len(path) > 2 else None
        if isinstance(index, int):
            if index not in left_out:
                yield (*path[:2], index - sum(each < index for each in left_out), *path[3:]), origin
        elif path:
            yield path, origin


def _value(rule: Rule, value: Any, files: Files) -> Any:
    if value is None:
        return None
    if "duration" in rule:
        return units.seconds(value)
    if "size" in rule:
        return units.size(value)
    meta = rule.get("meta", {})
    if "file" in meta:
        return files.absolute(value)
    model = meta.get("model")
    if isinstance(value, list):
        return tuple(_value(rule["schema"], entry, files) for entry in value if entry is not None)
    if isinstance(value, dict):
        schema = rule["schema"]
        return _entry(model, {key: _value(schema.get(key, {}), entry, files) for key, entry in value.items()}, files)
    if model is Listen:
        return Listen(_endpoint(value, files))
    if model is Target:
        return addresses.target(value)
    form = rule.get("form")
    if form == "endpoint":
        return _endpoint(value, files)
    if form == "host:port":
        return addresses.host_and_port(value)
    if form == "redis url":
        return addresses.redis_url(value)
    return float(value) if rule.get("type") == "number" else value


def _entry(model: Any, values: dict[str, Any], files: Files) -> Any:
    if model is Target:
        return addresses.target(values["url"], values.get("weight", 1))
    if model is AccessLog and values.get("file", "-") != "-":
        values["file"] = files.absolute(values["file"])
    if model in (JWTVerifier, OAuthSigning, AcceptedKey):
        values = _with_secret(values, files)
    return model(**values)


def _with_secret(values: dict[str, Any], files: Files) -> dict[str, Any]:
    secret, file = values.pop("secret", None), values.pop("secret_file", None)
    if file is not None:
        return {**values, "secret": Secret(text(files.data(file)))}
    return {**values, "secret": Secret(secret.encode())} if secret is not None else values


def _endpoint(value: str, files: Files) -> str:
    endpoint = endpoints.parse(value)
    names = [*endpoint.files, *([endpoint.get("address")] if endpoint.kind == "unix" else [])]
    return value if all(map(os.path.isabs, names)) else endpoint.absolute(files.absolute("."))
