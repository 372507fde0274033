"""Merges a directory of YAML files, or takes one file, into one document that keeps the place of every value.

Maps are merged by key and lists by appending, in the order of the file names. A key with any other value in two files
is a fault that names both places. Entries of ``services`` are not merged: a service is written in one file.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, define

from apigw.config.defaults import Filled, fill, take
from apigw.config.errors import ConfigError, Problem
from apigw.config.keys import Rule
from apigw.config.marks import Node, compose, decode
from apigw.config.model import ALWAYS, Origin, Path

MAX_FILE = 16 * 1024 * 1024
STDIN = "-"

_WHOLE_ENTRIES: Path = ("services",)


@define
class Document:
    """The merged files, before they are checked.

    ``tree`` has plain values. ``places`` and ``keys`` have the places of each value and its key. ``written`` is the
    text of a scalar in the file, if it differs from the value; ``variables`` are the environment variables in it.
    ``broken`` are the paths without a usable value, ``troubled`` those at or below which a value is wrong. ``whole`` is
    false if a file could not be read, which may contain what seems to be missing. ``schema`` is that of the whole
    configuration, ``reserved`` are the paths that the gateway answers itself. ``filled`` are the paths of values that
    are defaults, with their paths there, which problems name.
    """

    directory: str
    tree: dict[str, Any] = Factory(dict)
    places: dict[Path, Origin] = Factory(dict)
    keys: dict[Path, Origin] = Factory(dict)
    written: dict[Path, str] = Factory(dict)
    variables: dict[Path, tuple[str, ...]] = Factory(dict)
    problems: list[Problem] = Factory(list)
    warnings: list[Problem] = Factory(list)
    troubled: set[Path] = Factory(set)
    broken: set[Path] = Factory(set)
    files: list[str] = Factory(list)
    whole: bool = True
    schema: Rule = Factory(dict)
    reserved: tuple[str, ...] = ALWAYS
    filled: Filled = Factory(dict)

    def report(self, path: Path, sentence: str, at: Origin | None = None) -> None:
        """Add a problem with ``path``, placed ``at``; by default at the value, or else its container."""
        self.problems.append(Problem(sentence, self._written(path), at or self.place(path)))

    def spoil(self, path: Path, sentence: str, at: Origin | None = None) -> None:
        """Add a problem with the value itself. Later checks skip it and all below it."""
        self.report(path, sentence, at)
        self.discard(path)

    def discard(self, path: Path) -> None:
        self.broken.add(path)
        self.troubled.update(path[:length] for length in range(len(path) + 1))

    def warn(self, path: Path, sentence: str, at: Origin | None = None) -> None:
        self.warnings.append(Problem(sentence, self._written(path), at or self.place(path)))

    def _written(self, path: Path) -> Path:
        """Where the value at ``path`` is written."""
        for length in range(len(path) if self.filled else 0, 0, -1):
            if path[:length] in self.filled:
                return (*self.filled[path[:length]], *path[length:])
        return path

    def place(self, path: Path) -> Origin | None:
        if path in self.places:
            return self.places[path]
        for length in range(len(path) - 1, 0, -1):
            if held := self.keys.get(path[:length]) or self.places.get(path[:length]):
                return held
        return None

    def key(self, path: Path) -> Origin | None:
        return self.keys.get(path) or self.place(path)

    def get(self, *path: str | int) -> Any:
        """The value at ``path``; ``None`` if there is none, or there is a problem at it, above it or below it."""
        return self._at(path) if self.is_sound(path) else None

    def entries(self, *path: str | int) -> Iterator[tuple[Path, Any]]:
        """Path and value of each entry of the map or list at ``path``; of maps, only the keys without problems."""
        value: Any = None if path in self.broken else self._at(path)
        keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            at, entry = (*path, key), value[key]
            if at in self.broken:
                continue
            if at not in self.troubled:
                yield at, entry
            elif isinstance(entry, dict):
                yield at, {name: held for name, held in entry.items() if self.is_sound((*at, name))}

    def is_sound(self, path: Path) -> bool:
        return path not in self.troubled and path not in self.broken

    def _at(self, path: Path) -> Any:
        if self.broken and any(path[:length] in self.broken for length in range(len(path))):
            return None
        value: Any = self.tree
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def in_order(self, problems: list[Problem]) -> list[Problem]:
        """The problems, without duplicates, in the order of the files and of their lines."""
        order = {file: index for index, file in enumerate(self.files)}

        def key(problem: Problem) -> tuple[int, int, int]:
            origin = problem.origin
            return (order.get(origin.file, len(order)), origin.line, origin.column) if origin else (-1, 0, 0)

        return sorted(dict.fromkeys(problems), key=key)


def read(directory: str, environ: Mapping[str, str], schema: Rule, alone: bool = False) -> Document:
    """Reads and merges ``DIR/*.yaml`` and ``DIR/services/*.yaml``. Problems go to ``Document.problems``.

    ``alone``: ``directory`` is one file instead, or ``-`` for standard input. What it names is relative to its
    directory.
    """
    document = Document(os.path.abspath(os.path.dirname(directory) if alone else directory), schema=schema)
    root = Node({}, Origin(directory, 1, 1))
    local: dict[str, Node] = {}
    for file in [directory] if alone else _files(directory, document):
        document.files.append(file)
        try:
            node = compose(_text(file), file, environ)
        except ConfigError as error:
            document.problems.extend(error.problems)
            document.whole = False
            continue
        if node is None:
            document.warnings.append(Problem("is empty", (), Origin(file, 1, 1)))
        elif not isinstance(node.value, dict):
            node.fault("contains no keys at its top level: it must begin with gateway:, services:, routes: or the like")
            document.problems += [Problem(sentence, below, origin) for sentence, origin, below in node.faults]
            document.whole = False
        else:
            take(node, file, local)
            _merge(root, node, ())
    document.filled = fill(root, local, schema)
    document.tree = _lay_out(document, root, ())
    return document


def _below(folder: str, names: list[str]) -> Iterator[Problem]:
    """Warns of directories with YAML that is not read."""
    for name in names:
        try:
            beside = os.listdir(os.path.join(folder, name))
        except OSError:  # no directory, mostly
            continue
        found = sorted(each for each in beside if each.endswith((".yaml", ".yml")))
        if found:
            sentence = f"is not read: only *.yaml in {folder} and in its services are"
            yield Problem(sentence, (), Origin(os.path.join(folder, name, found[0]), 1, 1))


def yaml_files(directory: str) -> list[str]:
    """The files that ``read`` would read."""
    return _files(directory, Document(directory))


def _files(directory: str, document: Document) -> list[str]:
    found: list[str] = []
    for folder, required in ((directory, True), (os.path.join(directory, "services"), False)):
        try:
            names = sorted(os.listdir(folder))
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            if required or not missing:
                sentence = "there is no such directory" if missing else _reason(error)
                document.problems.append(Problem(f"{folder}: {sentence}"))
            break
        shown = [name for name in names if not name.startswith(".")]
        found += [os.path.join(folder, name) for name in shown if name.endswith(".yaml")]
        for name in shown:
            if name.endswith(".yml"):
                sentence = "is not read: only files that end in .yaml are"
                document.warnings.append(Problem(sentence, (), Origin(os.path.join(folder, name), 1, 1)))
        document.warnings += _below(folder, [name for name in shown if required and name != "services"])
    if not found and not document.problems:
        document.problems.append(Problem(f"{directory}: contains no configuration: there is no *.yaml file in it"))
    return found


def _text(file: str) -> str:
    start = Origin(file, 1, 1)
    if file == STDIN:
        return decode(sys.stdin.buffer.read(MAX_FILE), file)
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError([Problem("is not a regular file", (), start)])
        if status.st_size > MAX_FILE:
            raise ConfigError([Problem(f"is larger than {MAX_FILE >> 20}MiB", (), start)])
        with open(file, "rb") as stream:
            return decode(stream.read(MAX_FILE + 1), file)
    except OSError as error:
        raise ConfigError([Problem(_reason(error), (), start)]) from None


def _reason(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


_KINDS: dict[type[Any], str] = {dict: "a map", list: "a list"}


def _merge(first: Node, second: Node, path: Path) -> None:
    first.faults += second.faults
    for key, node in second.value.items():
        held = first.value.get(key)
        if held is None:
            first.value[key] = node
        elif isinstance(held.value, dict) and isinstance(node.value, dict) and path != _WHOLE_ENTRIES:
            _merge(held, node, (*path, key))
        elif isinstance(held.value, list) and isinstance(node.value, list):
            held.value += node.value
            held.faults += node.faults
        else:
            kinds = [_KINDS.get(type(each.value)) for each in (node, held)]
            unlike = None not in kinds and kinds[0] != kinds[1]
            sentence = f"is {kinds[0]}, but {kinds[1]}" if unlike else "is given twice, first"
            first.fault(f"{sentence} at {held.key}", node.key, (key,))


def _lay_out(document: Document, node: Node, path: Path) -> Any:
    document.places[path] = node.origin
    if node.key:
        document.keys[path] = node.key
    if node.written is not None:
        document.written[path] = node.written
    if node.variables:
        document.variables[path] = node.variables
    for sentence, origin, below in node.faults:
        document.report((*path, *below), sentence, origin)
    if node.broken:
        document.discard(path)
        return None
    if isinstance(node.value, dict):
        return {key: _lay_out(document, entry, (*path, key)) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [_lay_out(document, entry, (*path, index)) for index, entry in enumerate(node.value)]
    return node.value
