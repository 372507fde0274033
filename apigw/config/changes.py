"""What differs between two configurations, in the words of their files, for ``apigw diff``.

A setting is named by the keys that lead to it, and an entry of a list by what identifies it, so that one that only
moved has not changed: ``routes[/users/:id].timeout``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.secrecy import masked_in_url
from apigw.config.show import shown

_IDENTIFY = ("hosts", "path", "route", "endpoint", "scope", "by", "url", "dns", "srv", "cert_file")
"""Keys that together tell entries of a list apart that have no ``name`` or ``id``."""

Settings = dict[str, tuple[Any, str]]
"""Value and shown text of each setting, by its name."""


def changes(old: Document, new: Document) -> Iterator[str]:
    """Lines that begin with ``added:``, ``removed:`` or ``changed:``, in the order of the new files.

    What is new, or gone, as a whole has one line. No secret is shown: of one that changed the line says that it did.
    """
    before, after = _entries(old), _entries(new)
    for name, settings in after.items():
        if name in before:
            yield from _changed(before[name], settings)
        else:
            yield f"added: {name}"
    for name in before:
        if name not in after:
            yield f"removed: {name}"


def _changed(before: Settings, after: Settings) -> Iterator[str]:
    for name in (*after, *(name for name in before if name not in after)):
        if name not in before:
            yield f"added: {name}: {after[name][1]}"
        elif name not in after:
            yield f"removed: {name}: {before[name][1]}"
        elif before[name][0] != after[name][0]:
            texts = before[name][1], after[name][1]
            yield f"changed: {name}: " + ("another secret" if texts[0] == texts[1] else " → ".join(texts))


def _entries(document: Document) -> dict[str, Settings]:
    """The settings of each section; of services and lists, of each entry."""
    found: dict[str, Settings] = {}
    for section, value in document.tree.items():
        whole = [(section, (section,), value)]
        for name, path, entry in _below(section, (section,), value) if section == "services" or _maps(value) else whole:
            found[name] = dict(_settings(document, entry, path, name))
    return found


def _settings(document: Document, value: Any, path: Path, name: str) -> Iterator[tuple[str, tuple[Any, str]]]:
    if (value and isinstance(value, dict)) or _maps(value):
        for below, at, entry in _below(name, path, value):
            yield from _settings(document, entry, at, below)
    elif isinstance(value, list):
        yield name, (value, f"[{', '.join(shown(document, each, (*path, n)) for n, each in enumerate(value))}]")
    else:
        yield name, (value, shown(document, value, path))


def _maps(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def _below(name: str, path: Path, value: Any) -> Iterator[tuple[str, Path, Any]]:
    """Name, path and value of each entry of a map or a list."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield f"{name}.{key}", (*path, key), entry
        return
    shared = Counter(map(_label, value))
    seen: Counter[str] = Counter()
    for index, entry in enumerate(value):
        label = _label(entry)
        if shared[label] > 1:
            label = _label(entry, (*_IDENTIFY, "methods"))
        seen[label] += 1
        again = f" #{seen[label]}" if seen[label] > 1 else ""
        yield f"{name}[{label}{again}]", (*path, index), entry


def _label(entry: Any, keys: Sequence[str] = _IDENTIFY) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    for key in ("name", "id"):
        if key in entry:
            return str(entry[key])
    parts = (entry[key] for key in keys if key in entry)
    return masked_in_url(" ".join(",".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts))
