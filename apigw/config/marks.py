"""Parses YAML text into a tree of nodes with their places (line and column).

A file is one document of maps, lists and scalars. Anchors, aliases, merge keys and tags are refused: with them a small
file can expand to gigabytes ("billion laughs"), or a value can have two places. Values that YAML 1.1 reads in a
surprising way (``010``, ``12:30:00``, a key ``no``) are refused with the reason. A fault of one value is stored in its
node, and the rest of the file is still read; only a syntax error stops.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml
from attrs import Factory, define

from apigw.config.errors import ConfigError, Problem
from apigw.config.model import Origin, Path
from apigw.config.substitute import substitute

MAX_DEPTH = 32
MAX_KEY = 200

_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LOOKAHEAD = 1024 + 64
"""How far libyaml reads ahead of an event, in characters: 1024 for a key in one line (YAML 1.2 §7.4), and 64 spare."""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BEGINS = {"while scanning an alias": "*", "while scanning an anchor": "&"}
_NO_SPACE = re.compile(r"\s*(?:- +)?[A-Za-z_][\w-]*:(?!//)[^\s:]\S*\s*$")
"""A line with a key and a value, and no space between them: YAML reads a text, which goes on in the next line."""

_NAMES_IN_BRACES = re.compile(r"[^\s:,{\[]\{[a-z]+(?:\.[^{}\s]+)?\}")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_KEYS = ("on",)
"""Keys of ours that YAML 1.1 reads as true or false where it does not know better."""
_TAG = "tag:yaml.org,2002:"


@define
class Node:
    """``value`` is a dict of nodes, a list of nodes, or a plain scalar.

    ``written`` is the text of a scalar in the file, if it differs from the value: before substitution, or what YAML
    reads as a number or the like. ``faults`` are the problems here: sentence, place, and path from this node. A
    ``broken`` node has no usable value.
    """

    value: Any
    origin: Origin
    key: Origin | None = None
    written: str | None = None
    variables: tuple[str, ...] = ()
    faults: list[tuple[str, Origin, Path]] = Factory(list)
    broken: bool = False

    def fault(self, sentence: str, origin: Origin | None = None, path: Path = ()) -> None:
        self.faults.append((sentence, origin or self.origin, path))


class _Stream(io.StringIO):
    """The parsers name every mark after the stream."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def decode(data: bytes, file: str) -> str:
    """The text of a file. Raises ``ConfigError``, with the place, if it is not UTF-8 or contains control characters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise _failure(f"is not UTF-8: byte 0x{data[error.start]:02x}", _place(file, before)) from None
    text = text.removeprefix("\ufeff")
    if match := _UNPRINTABLE.search(text):
        character = ord(match[0])
        raise _failure(f"contains the control character U+{character:04X}", _place(file, text[: match.start()]))
    return text


def compose(text: str, file: str, environ: Mapping[str, str]) -> Node | None:
    """The document in ``text``; ``None`` if it is empty. Raises ``ConfigError`` for a syntax error."""
    return _Composer(text, file, environ).document()


def _place(file: str, before: str) -> Origin:
    lines = _LINE_BREAK.split(before)
    return Origin(file, len(lines), len(lines[-1]) + 1)


class _TooDeep(ConfigError):
    """Raised before anything recurses."""


def _failure(sentence: str, origin: Origin) -> ConfigError:
    return ConfigError([Problem(sentence, (), origin)])


def _origin(mark: Any) -> Origin:
    return Origin(mark.name, mark.line + 1, mark.column + 1)


class _Composer:
    """Pulls events, which come one at a time, so that depth is bounded before anything recurses."""

    def __init__(self, text: str, file: str, environ: Mapping[str, str], loader: Any = _FastLoader) -> None:
        self._text = text
        self._file = file
        self._environ = environ
        self._loader = loader(_Stream(text, file))

    def document(self) -> Node | None:
        try:
            self._next()
            if self._loader.check_event(yaml.StreamEndEvent):
                return None
            self._next()
            root = self._node(self._next(), 0)
            self._next()
            if not self._loader.check_event(yaml.StreamEndEvent):
                origin = _origin(self._next().start_mark)
                raise _failure("begins a second document: a file holds one, so remove the ---", origin)
        except yaml.MarkedYAMLError as error:
            self._check_depth(error)
            raise self._syntax(error) from None
        except yaml.YAMLError as error:
            raise _failure(f"is not YAML: {error}", Origin(self._file, 1, 1)) from None
        finally:
            self._loader.dispose()
        return None if root.value is None and not root.faults else root

    def _next(self) -> Any:
        return self._loader.get_event()

    def _check_depth(self, error: yaml.MarkedYAMLError) -> None:
        """Raise ``_TooDeep`` where an error stands behind too many open brackets.

        libyaml refuses 1,000 of them by itself (PyYAML 6.0.4 and later), and does so while it reads ahead, before the
        first of them is an event. PyYAML's parser in Python has no such bound, and comes to the one that is too deep.
        """
        mark: Any = error.problem_mark
        ahead = self._text[max(0, mark.index - _LOOKAHEAD) : mark.index] if mark else ""
        if ahead.count("[") + ahead.count("{") > MAX_DEPTH and not isinstance(self._loader, yaml.SafeLoader):
            try:
                _Composer(self._text, self._file, self._environ, yaml.SafeLoader).document()
            except _TooDeep:
                raise
            except ConfigError:
                pass

    def _syntax(self, error: yaml.MarkedYAMLError) -> ConfigError:
        mark: Any = error.problem_mark or error.context_mark
        lines = _LINE_BREAK.split(self._text)
        line = lines[mark.line] if mark.line < len(lines) else ""
        if line[mark.column : mark.column + 1] == "\t":
            return _failure("is indented with a tab: YAML wants spaces", _origin(mark))
        sentence = f"is not YAML: {error.problem}"
        start: Any = error.context_mark
        if error.context:
            sentence += f" {error.context}" + (f" that begins at line {start.line + 1}" if start else "")
        if "flow mapping" in (error.context or "") and _NAMES_IN_BRACES.search(line):
            sentence += "; a value with braces needs quotes"
        if "mapping values are not allowed" in sentence:
            if _NO_SPACE.match(lines[mark.line - 1] if mark.line else ""):
                sentence += f"; line {mark.line} has no space after its colon"
            else:
                sentence += "; a value that contains a colon and a space needs quotes"
        if "unknown escape character" in sentence:
            sentence += "; in single quotes a backslash is one"
        if (
            start
            and "did not find expected key while parsing a block mapping" in sentence
            and start.column != mark.column
        ):
            sentence += "; the keys of a map begin in one column"
        begins = _BEGINS.get(error.context or "", "")
        if "cannot start any token" in (error.problem or ""):
            begins = line[mark.column : mark.column + 1]
        if begins:
            sentence += f"; a value that begins with {begins} needs quotes"
        return _failure(sentence, _origin(mark))

    def _node(self, event: Any, depth: int) -> Node:
        origin = _origin(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            node = Node(None, origin, broken=True)
            node.fault(f"refers to *{event.anchor}: anchors and aliases are not supported, write the value out")
            return node
        if depth > MAX_DEPTH:
            raise _TooDeep([Problem(f"is nested more than {MAX_DEPTH} deep", (), origin)])
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, origin)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node([], origin)
            while not self._loader.check_event(yaml.SequenceEndEvent):
                node.value.append(self._node(self._next(), depth + 1))
            self._next()
        else:
            node = Node({}, origin)
            while not self._loader.check_event(yaml.MappingEndEvent):
                self._entry(node, self._next(), depth)
            self._next()
        if event.anchor:
            node.fault(f"has the anchor &{event.anchor}: anchors and aliases are not supported")
        if event.tag:
            node.fault("has a tag (!): tags are not supported, write text in quotes")
            node.broken = True
        return node

    def _entry(self, mapping: Node, event: Any, depth: int) -> None:
        place = _origin(event.start_mark)
        complaint = self._complaint(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, depth + 1)
        value = self._node(self._next(), depth + 1)
        if complaint:
            mapping.fault(complaint, place)
            return
        key = event.value
        first = mapping.value.get(key)
        if first is not None:
            mapping.fault(f"is given twice, first at {first.key}", place, (key,))
            return
        value.key = place
        mapping.value[key] = value

    def _complaint(self, event: Any) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            return "contains a key that is not text"
        if event.anchor or event.tag:
            return "contains a key with an anchor or a tag: they are not supported"
        text = event.value
        if event.implicit[0]:
            kind = self._loader.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_TAG)
            if kind == "merge":
                return "contains a merge key (<<): they are not supported, write the keys out"
            if kind in ("bool", "null", "int", "float") and text not in _KEYS:
                shown = f"the key {text}, which YAML does not read as text" if text else "an empty key"
                return f"contains {shown}: write it in quotes"
        if not text or len(text) > MAX_KEY or not text.isprintable():
            return f"contains a key that is empty, longer than {MAX_KEY} characters, or not printable"
        return None

    def _scalar(self, event: Any, origin: Origin) -> Node:
        written = event.value
        node = Node(written, origin)
        try:
            text, node.variables = substitute(written, self._environ)
            node.value = text
            if event.implicit[0] and event.tag is None:
                node.value = self._resolve(text, shown=text if text == written else written)
        except ValueError as error:
            node.value, node.broken = None, True
            node.fault(str(error))
        if node.value is not written:
            node.written = written
        return node

    def _resolve(self, text: str, shown: str) -> Any:
        kind = self._loader.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        if kind == "int":
            return _whole(text, shown)
        if kind == "float":
            return _number(text, shown)
        return text


def _whole(text: str, shown: str) -> int:
    if _WHOLE.fullmatch(text):
        return int(text)
    if len(text) > 24:
        raise ValueError("is too large a number: write it in quotes if it is text")
    node = yaml.ScalarNode(f"{_TAG}int", text)
    try:
        value = yaml.constructor.SafeConstructor().construct_yaml_int(node)
    except (ValueError, IndexError):
        raise ValueError(f"is {shown}, which YAML reads as a number: write it in quotes") from None
    raise ValueError(f"is {shown}, which YAML reads as the number {value}: write that, or {shown} in quotes")


def _number(text: str, shown: str) -> float:
    try:
        value = float(text.replace("_", "x"))
    except ValueError:
        raise ValueError(f"is {shown}, which YAML reads as a number: write it in quotes") from None
    if not math.isfinite(value) or len(text) > 40:
        raise ValueError("is too large a number")
    return value
