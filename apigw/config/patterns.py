"""Path patterns, as far as a configuration must understand them: their form, and which paths two of them share.

A pattern is literal segments, ``:name`` segments, and ``*`` as the last segment, which matches the rest: one or more
characters, or none after its slash. Literals are compared decoded (RFC 3986 §2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import frozen

ANY = ":"
REST = "*"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@frozen
class Pattern:
    """``shape`` has one entry a segment: ``=literal`` (decoded), ``:`` or ``*``. ``names`` are the parameters."""

    shape: tuple[str, ...]
    names: tuple[str, ...] = ()

    def begins_with(self, prefix: Pattern) -> bool:
        return self.shape[: len(prefix.shape)] == prefix.shape

    def matches(self, other: Pattern) -> bool:
        """Whether some path matches both."""
        tree = PatternTree([self])
        return tree.meets(other)


def parse(text: str) -> Pattern:
    """Raises ``ValueError`` with what is wrong, as the end of a sentence that begins with the pattern."""
    if not text.startswith("/"):
        raise ValueError("does not begin with /")
    segments = text[1:].split("/")
    shape: list[str] = []
    names: list[str] = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if not segment and not last:
            raise ValueError("has an empty segment (//)")
        if segment.startswith(":"):
            if not _NAME.fullmatch(segment[1:]):
                raise ValueError("has a parameter that is not : and a name of letters, digits, _ and -")
            if segment[1:] in names:
                raise ValueError(f"has the parameter {segment} twice")
            names.append(segment[1:])
            shape.append(ANY)
        elif segment == "*":
            if not last:
                raise ValueError("has a * that is not its last segment")
            shape.append(REST)
        else:
            shape.append("=" + literal(segment))
    return Pattern(tuple(shape), tuple(names))


def literal(segment: str) -> str:
    """The decoded segment. Raises ``ValueError`` where no request that is let in could carry it."""
    if "*" in segment:
        raise ValueError("has a * that is not alone in its segment (write %2A for the character)")
    for character, name in (("?", "a query (?)"), ("#", "a fragment (#)"), ("\\", "a backslash")):
        if character in segment:
            raise ValueError(f"has {name}: a path has none")
    if _BAD_PERCENT.search(segment):
        raise ValueError("has a % that is not followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("has percent-encoded bytes that are not UTF-8") from None
    if _CONTROL.search(decoded):
        raise ValueError("has a control character")
    if re.search(r"\s", segment):
        raise ValueError("has white space (write %20)")
    if "/" in decoded or "\\" in decoded:
        raise ValueError("has an encoded slash or backslash: requests with one are refused")
    if decoded.split(";")[0] in (".", ".."):
        raise ValueError("has a . or .. segment: requests with one are refused")
    return decoded


class PatternTree:
    """Patterns by their segments, to find out quickly whether another one shares a path with any of them."""

    _END = "end"

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._root: dict[str, Any] = {}
        for pattern in patterns:
            node = self._root
            for part in pattern.shape:
                node = node.setdefault(part, {})
            node[self._END] = {}

    def meets(self, pattern: Pattern) -> bool:
        """Whether some path matches ``pattern`` and one of the tree's. Visits each node at most once."""
        return self._meets(self._root, pattern.shape, 0)

    def _meets(self, node: dict[str, Any], shape: tuple[str, ...], position: int) -> bool:
        if position == len(shape):
            return self._END in node
        if REST in node:
            return True
        part = shape[position]
        if part == REST:
            return any(key != self._END for key in node)
        if part == ANY:
            nodes = [child for key, child in node.items() if key not in (self._END, "=")]
        else:
            nodes = [node[key] for key in ((part,) if part == "=" else (part, ANY)) if key in node]
        return any(self._meets(child, shape, position + 1) for child in nodes)
