"""Checks that the files in a configuration exist and have the right content."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from apigw.config.files import Files, fit
from apigw.config.keys import Rule, may_be_list
from apigw.config.merge import Document
from apigw.config.model import Path
from apigw.config.rules import Content, ContentByPath
from apigw.config.validate import shown


def contents(
    document: Document,
    files: Files,
    judges: Mapping[str, Content],
    private: Collection[str],
    by_path: Mapping[str, ContentByPath],
) -> None:
    """Reports each file that cannot be read, or whose content is not what the schema says.

    A warning where others can read one that holds what is ``private``, or everybody can write to it.
    """
    for key, rule in document.schema.items():
        if key in document.tree and _names_files(rule):
            for path, name, holds in _named(document, rule, document.tree[key], (key,)):
                try:
                    if holds in by_path:
                        by_path[holds](files.use(name))
                    else:
                        judges[holds](files.data(name))
                except ValueError as error:
                    document.report(path, f"{shown(document, path, name)} {error}")
                else:
                    warn_exposed(document, files, path, name, holds in private)


def warn_exposed(document: Document, files: Files, path: Path, name: str, private: bool) -> None:
    sentence = files.exposed(name, private)
    if sentence is not None:
        document.warn(path, f"{shown(document, path, name)} {sentence}")


def pairs(document: Document, files: Files) -> None:
    """Reports each certificate that does not fit its key."""
    named: list[tuple[Path, str, str]] = []
    for path, listen in document.entries("gateway", "listen"):
        if isinstance(listen, dict):
            named += [(at, "cert_file", "key_file") for at, _ in _certificates(document, path)]
    named += [((*path, "tls"), "client_cert_file", "client_key_file") for path, _ in document.entries("services")]
    for path, certificate, key in named:
        pair = document.get(*path)
        if isinstance(pair, dict) and pair.get(certificate) and pair.get(key):
            at = (*path, key)
            try:
                fits = fit(files.data(pair[certificate]), files.data(pair[key]))
            except ValueError:  # contents has said so
                continue
            if not fits:
                document.report(
                    at, f"{shown(document, at, pair[key])} is not the key of {shown(document, (), pair[certificate])}"
                )


def logs(document: Document, files: Files) -> None:
    for log in ("access_log", "audit_log"):
        _log(document, files, ("gateway", log, "file"))


def _log(document: Document, files: Files, path: Path) -> None:
    name = document.get(*path)
    if isinstance(name, str) and name != "-":
        file = files.absolute(name)
        folder = os.path.dirname(file)
        if os.path.isdir(file):
            document.report(path, f"{shown(document, path, name)} is a directory")
        elif not os.path.isdir(folder):
            document.report(path, f"{shown(document, path, name)} is in a directory that does not exist")


def _certificates(document: Document, path: Path) -> Iterator[tuple[Path, Any]]:
    listed = document.get(*path, "tls", "certificates")
    return (((*path, "tls", "certificates", index), entry) for index, entry in enumerate(listed or ()))


def _names_files(rule: Rule) -> bool:
    """Of the sections that name none there may be thousands of entries."""
    if "file" in rule.get("meta", {}):
        return True
    below = rule.get("valuesrules") or rule.get("schema", {})
    if may_be_list(rule) or "valuesrules" in rule:
        return _names_files(below)
    return any(map(_names_files, below.values()))


def _named(document: Document, rule: Rule, value: Any, path: Path) -> Iterator[tuple[Path, str, str]]:
    """Path, file name and what the file must hold, of all that is below ``path`` and sound."""
    if path in document.broken:
        return
    if isinstance(value, str) and "file" in rule.get("meta", {}):
        yield path, value, rule["meta"]["file"]
    elif isinstance(value, dict):
        for key, entry in value.items():
            below = rule.get("valuesrules") or rule["schema"].get(key)
            if below:
                yield from _named(document, below, entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _named(document, rule["schema"], entry, (*path, index))
