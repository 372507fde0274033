"""Checks of plugins in the configuration, and their schemas, which become part of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apigw.config.files import Files
from apigw.config.forms import name as check_name
from apigw.config.merge import Document
from apigw.config.model import Config, Path, Route
from apigw.config.nearest import hint
from apigw.config.rules import Rules
from apigw.config.validate import shown
from apigw.policy.plugins.loading import Unloadable, code_of, find, load, text_of
from apigw.policy.plugins.model import plugins_of, used_by, used_by_services
from apigw.policy.plugins.plugin_schema import guarded, made
from apigw.policy.plugins.schema import KEYS
from apigw.policy.plugins.shape import problems_of


def written(text: str) -> None:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("is neither module:Class, nor ./file.py:Class, nor the name of an entry point")


def learn(document: Document, files: Files) -> None:
    """Import the classes, and put their schemas into that of the document. Reports those that cannot be used."""
    rule = document.schema.get("plugins")
    held = document.tree.get("plugins")
    if rule is None or not isinstance(held, dict):
        return
    entry = rule["valuesrules"]
    schemas: dict[str, Any] = {}
    for name, plugin in held.items():
        try:
            check_name(str(name))
        except ValueError as error:
            document.report(("plugins", name), f"{name!r} {error}", document.key(("plugins", name)))
        path: Path = ("plugins", name, "policy")
        if not isinstance(plugin, dict) or not isinstance(plugin.get("policy"), str) or path in document.broken:
            continue
        try:
            written(plugin["policy"])
            found = load(find(plugin["policy"], document.directory))
        except (Unloadable, ValueError) as error:
            document.spoil(path, f"{shown(document, path, plugin['policy'])} {error}")
            continue
        try:
            problems = list(problems_of(found))
        except BaseException as error:  # of a metaclass, or a dict that is none
            problems = [f"cannot be looked at: {type(error).__name__}: {text_of(error)}"]
        for problem in problems:
            document.report(path, f"{shown(document, path, plugin['policy'])} {problem}")
        if problems:
            document.discard(path)
            continue
        theirs = guarded(found.schema)
        settings = {**entry["schema"]["with"], "schema": theirs}
        if plugin.get("with") is None and any(each.get("required") for each in theirs.values()):
            missing = ", ".join(str(key) for key, each in theirs.items() if each.get("required"))
            document.report(
                ("plugins", name), f"has no with, which must have {missing}", document.key(("plugins", name))
            )
        schemas[name] = {**entry, "schema": {**entry["schema"], "with": settings}}
    if schemas:
        document.schema = {**document.schema, "plugins": {**rule, "schema": {**dict.fromkeys(held, entry), **schemas}}}


def _near(name: str, known: Mapping[str, object]) -> str:
    """The hint for a plugin that is not there."""
    said = hint(name, known)
    return said if said or known else ": describe it there, at the top: plugins: {" + f"{name}: {{policy: …}}}}"


def plugins(document: Document, files: Files) -> None:
    """Reports plugins that are used and not there. Notes what the others were loaded from."""
    held = document.tree.get("plugins")
    known = held if isinstance(held, dict) else {}
    used: set[str] = set()
    for path, names in _uses(document):
        for index, name in enumerate(names):
            used.add(name)
            if name not in known:
                if document.whole:
                    document.report((*path, index), f"{name!r} is not among plugins{_near(name, known)}")
            elif name in names[:index]:
                document.report((*path, index), f"{name!r} is given twice")
    for path, plugin in document.entries("plugins"):
        if isinstance(plugin, dict) and document.is_sound(path):
            name = str(path[-1])
            _note(document, path, known[name])
            if name not in used:
                document.warn(path, "is used nowhere", document.key(path))


def _uses(document: Document) -> Iterator[tuple[Path, list[str]]]:
    yield ("gateway", "use"), document.get("gateway", "use") or []
    for section in ("services", "routes"):
        for path, each in document.entries(section):
            if isinstance(each, dict):
                yield (*path, "use"), each.get("use") or []


def _note(document: Document, path: Path, plugin: dict[str, Any]) -> None:
    place = find(plugin["policy"], document.directory)
    try:
        code = code_of(place)
    except Unloadable as error:
        document.report((*path, "policy"), f"{shown(document, (*path, 'policy'), plugin['policy'])} {error}")
        return
    plugin["place"], plugin["code"], plugin["directory"] = place, code, document.directory
    plugin["with"] = made(load(place).schema, plugin.get("with") or {})


def told(config: Config, route: Route, path: bytes) -> Iterator[tuple[str, str]]:
    use = used_by(config, used_by_services(config), route)
    if use:
        classes = {plugin.name: plugin.policy for plugin in plugins_of(config)}
        yield "plugins", ", ".join(f"{name} ({classes[name]})" for name in use)


RULES = Rules(
    keys=KEYS,
    forms={"plugin": written, "plugin name": check_name},
    called={"plugin": "text", "plugin name": "name of a plugin"},
    learns=(learn,),
    checks=(plugins,),
    told=(told,),
)
