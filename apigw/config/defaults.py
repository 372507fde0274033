"""Defaults for routes and services: ``defaults`` at the top for all, and in a file of ``services/`` for that file.

They are filled in before anything is checked, so that every check, ``apigw show`` and the configuration see what holds.
A value that was filled in keeps its place, and problems with it are reported once, as of ``defaults``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from apigw.config.keys import Rule
from apigw.config.marks import Node
from apigw.config.model import Path

SECTIONS = {"route": "routes", "service": "services"}
NOT_SHARED = {"route": ("name", "path"), "service": ("targets",)}
"""Keys that have no default."""

Filled = dict[Path, Path]
"""Paths of values that were filled in, with their paths in ``defaults``."""


def rule_of_defaults(schema: Rule) -> Rule:
    """The rule of the section: the keys of routes and services, of which none is required."""
    below = {name: _optional(name, _entry(schema[section])) for name, section in SECTIONS.items()}
    doc = "Keys of routes and services where these do not have them. Also in a file of `services/`, for that file."
    return {"type": "dict", "schema": below, "meta": {"doc": doc, "model": None, "default": "`{}`"}}


def take(node: Node, file: str, local: dict[str, Node]) -> None:
    """Take ``defaults`` out of a file of ``services/``, for ``fill``."""
    if os.path.basename(os.path.dirname(file)) == "services" and "defaults" in node.value:
        local[file] = node.value.pop("defaults")


def fill(root: Node, local: Mapping[str, Node], schema: Rule) -> Filled:
    """Fill in what routes and services do not have. Faults of defaults that nothing takes are added to ``root``."""
    filled: Filled = {}
    used: set[tuple[str, str]] = set()
    for name, section in SECTIONS.items():
        rule = _entry(schema[section])["schema"]
        for path, entry in _entries(root, section):
            given: set[str] = set()
            for file, defaults in ((entry.origin.file, local.get(entry.origin.file)), ("", root.value.get("defaults"))):
                shared = _at(defaults, name)
                if shared is not None:
                    used.add((file, name))
                    _fill(entry, shared, path, ("defaults", name), rule, NOT_SHARED[name], filled)
                    given |= shared.value.keys()
            _take_back(entry, given, rule)
    for file, defaults in local.items():
        _judge(root, file, defaults, used)
    return filled


def _fill(
    entry: Node, shared: Node, path: Path, origin: Path, rule: Rule, not_shared: tuple[str, ...], filled: Filled
) -> None:
    """Nearer values stay. Rules for headers are merged by name."""
    answers = [key for key in rule if rule[key].get("meta", {}).get("answers")]
    answered = any(key in entry.value for key in answers)
    for key, node in shared.value.items():
        at, given = (*path, key), entry.value.get(key)
        if key in not_shared or (given is None and answered and key in answers):
            continue
        if given is None:
            entry.value[key] = node
            filled[at] = (*origin, key)
        elif rule.get(key, {}).get("meta", {}).get("merge") == "names":
            entry.value[key] = _merged(given, node, at, (*origin, key), filled)


def _take_back(entry: Node, given: set[str], rule: Rule) -> None:
    """Null in place of a default is no value, unless null is a value of this key."""
    for key in given & rule.keys():
        node = entry.value.get(key)
        if node is not None and node.value is None and not rule[key].get("nullable"):
            del entry.value[key]


def _merged(near: Node, far: Node, path: Path, origin: Path, filled: Filled) -> Node:
    """The rules of ``near``, and those of ``far`` for other names."""
    if not isinstance(near.value, dict) or not isinstance(far.value, dict):
        return near
    known = {name.lower() for node in near.value.values() for name in _names(node)}
    merged = dict(near.value)
    for operation, node in far.value.items():
        held = merged.get(operation)
        if held is None:
            held = Node(
                type(node.value)() if isinstance(node.value, dict | list) else node.value, node.origin, node.key
            )
        if isinstance(node.value, dict) and isinstance(held.value, dict):
            kept = {name: each for name, each in node.value.items() if name.lower() not in known}
            filled |= {(*path, operation, name): (*origin, operation, name) for name in kept}
            merged[operation] = _with(held, {**kept, **held.value})
        elif isinstance(node.value, list) and isinstance(held.value, list):
            others = [each for each in node.value if str(each.value).lower() not in known]
            count = len(held.value)
            filled |= {(*path, operation, count + n): (*origin, operation, n) for n in range(len(others))}
            merged[operation] = _with(held, [*held.value, *others])
    return _with(near, merged)


def _with(node: Node, value: Any) -> Node:
    return Node(value, node.origin, node.key, node.written, node.variables, node.faults, node.broken)


def _names(node: Node) -> list[str]:
    if isinstance(node.value, dict):
        return list(node.value)
    return [str(each.value) for each in node.value] if isinstance(node.value, list) else []


def _judge(root: Node, file: str, defaults: Node, used: set[tuple[str, str]]) -> None:
    """Report what is wrong with the defaults of one file, beyond what their values are where they were filled in."""
    path: Path = ("defaults",)
    root.faults += [(sentence, origin, (*path, *below)) for sentence, origin, below in defaults.faults]
    if not isinstance(defaults.value, dict):
        root.fault("must be a map", defaults.origin, path)
        return
    for name, node in defaults.value.items():
        at = (*path, name)
        if name not in SECTIONS:
            root.fault("is an unknown key: it has route and service", node.key, at)
        elif not isinstance(node.value, dict):
            root.fault("must be a map", node.origin, at)
        else:
            if (file, name) not in used and node.value:
                root.fault(f"has no effect: there are no {SECTIONS[name]} in this file", node.key, at)
            for key in NOT_SHARED[name]:
                if key in node.value:
                    root.fault("is an unknown key", node.value[key].key, (*at, key))


def _entries(root: Node, section: str) -> Iterator[tuple[Path, Node]]:
    held = root.value.get(section)
    value = None if held is None else held.value
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        if isinstance(entry.value, dict):
            yield (section, key), entry


def _at(node: Node | None, key: str) -> Node | None:
    found = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
    return found if found is not None and isinstance(found.value, dict) else None


def _entry(rule: Rule) -> Rule:
    """The rule of each entry of a section."""
    found: Rule = rule.get("valuesrules") or rule["schema"]
    return found


def _optional(name: str, rule: Rule) -> Rule:
    doc = f"Of each {name} that does not have the key itself: what [{SECTIONS[name]}](routing.md#defaults) have."
    keys = {
        key: {what: said for what, said in below.items() if what != "required"}
        for key, below in rule["schema"].items()
        if key not in NOT_SHARED[name]
    }
    return {
        "type": "dict",
        "schema": keys,
        "meta": {"doc": doc, "model": rule["meta"]["model"], "shared": True, "default": "none"},
    }
