"""A strict JSON parser for untrusted documents: tokens, key sets, records in Redis.

It refuses documents that parsers read differently, such as duplicate names (RFC 8259 §4), and bounds the nesting
(§9).
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
"""Maximum nesting of lists and maps. Tokens of known providers have some five. Python's parser fails at about 1,000, or
earlier if the stack is deep already."""

_TEXT_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_STEP = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class RepeatedName(ValueError):
    """A JSON object has a duplicate name, which parsers treat differently."""


def parse(document: bytes) -> Any:
    """The JSON value in ``document``: UTF-8, no name twice, no NaN, at most ``MAX_DEPTH`` deep.

    Raises ``ValueError`` for anything else.
    """
    if _is_deep(document):
        raise ValueError("lists or maps that lie too deep in one another")
    try:
        return _DECODER.decode(document.decode("utf-8"))
    except RepeatedName:
        raise RepeatedName("a name occurs twice") from None
    except ValueError:
        # JSONDecodeError carries the whole document: it must not travel with ours
        raise ValueError("not a JSON document") from None


def parse_object(document: bytes) -> dict[str, Any]:
    """The JSON object in ``document``. Raises ``ValueError`` as ``parse`` does, and for any other value."""
    value = parse(document)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _is_deep(document: bytes) -> bool:
    if document.count(b"[") + document.count(b"{") <= MAX_DEPTH:  # the usual case
        return False
    depth = 0
    for found in _TEXT_OR_BRACKET.finditer(document):
        depth += _STEP.get(found[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RepeatedName("a name occurs twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""Made once: ``json.loads`` makes one for each document, which takes as long as to read a token."""
