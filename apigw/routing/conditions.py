# Compiled: see docs/decisions/compiled.md
"""The conditions of a route: what headers, the query and cookies of a request must be.

If a name occurs several times in a request, one value that fits is enough. Expressions are those of RE2, whose time is
linear in the length of a value: docs/decisions/expressions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import re2
from attrs import evolve

from apigw.config.model import Condition
from apigw.config.secrecy import MASK, tells_of_a_secret

MOST = 32
"""Conditions of a route."""
LONGEST = 1000
"""Characters of an expression."""
LARGEST = 500
"""Instructions of an expression's program. Measured: with so many 32 KiB take 5 ms."""

Pairs = list[tuple[bytes, bytes]]


def expression(text: str) -> Callable[[bytes], object]:
    """What tells whether a whole value matches. Raises ``ValueError``, with a fragment that follows the text."""
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    options: Any = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    try:
        compiled: Any = re2.compile(text.encode("utf-8"), options)
    except re2.error as error:
        said = error.args[0]
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"is not an expression of RE2: {reason}") from None
    if compiled.programsize > LARGEST:
        raise ValueError("is too complex: repeat fewer times")
    matches: Callable[[bytes], object] = compiled.fullmatch
    return matches


class _Test:
    """One condition. Without ``equal`` and ``matches`` it is whether there is a value."""

    def __init__(self, condition: Condition, name: bytes) -> None:
        self.name = name
        self.equal = None if condition.equal is None else condition.equal.encode("utf-8")
        self.matches = None if condition.regex is None else expression(condition.regex)
        self.wanted = condition.present is not False

    def holds(self, pairs: Pairs) -> bool:
        name, equal, matches = self.name, self.equal, self.matches
        for other, value in pairs:
            if other != name:
                continue
            if equal is not None:
                if value == equal:
                    return True
            elif matches is None or matches(value) is not None:
                return self.wanted
        return not self.wanted


class Conditions:
    """All conditions of a route."""

    def __init__(
        self, headers: Iterable[Condition], query: Iterable[Condition] = (), cookies: Iterable[Condition] = ()
    ) -> None:
        """Raises ``ValueError`` for an expression that is none."""
        of = {
            "header": sorted(headers, key=_name),
            "query": sorted(query, key=_name),
            "cookie": sorted(cookies, key=_name),
        }
        self.texts = tuple([in_words(kind, each) for kind, held in of.items() for each in held])
        """Each in words, such as ``header x-version is '2'``; equal for the same conditions."""
        self._shown = ", ".join([shown_in_words(kind, each) for kind, held in of.items() for each in held])
        self._headers = [_Test(each, each.name.lower().encode("ascii")) for each in of["header"]]
        self._query = [_Test(each, each.name.encode("utf-8")) for each in of["query"]]
        self._cookies = [_Test(each, each.name.encode("utf-8")) for each in of["cookie"]]

    def __len__(self) -> int:
        return len(self.texts)

    def __str__(self) -> str:
        """All in words, without values that may be secrets."""
        return self._shown

    def hold(self, headers: Pairs, query: bytes) -> bool:
        """Whether all hold for a request. ``query`` is as sent, with its ``?``."""
        for test in self._headers:
            if not test.holds(headers):
                return False
        if self._query:
            values = _of_query(query)
            for test in self._query:
                if not test.holds(values):
                    return False
        if self._cookies:
            values = _of_cookies(headers)
            for test in self._cookies:
                if not test.holds(values):
                    return False
        return True


def _name(condition: Condition) -> str:
    return condition.name.lower()


def in_words(kind: str, condition: Condition) -> str:
    name = f"{kind} {condition.name.lower() if kind == 'header' else condition.name}"
    if condition.equal is not None:
        return f"{name} is {condition.equal!r}"
    if condition.regex is not None:
        return f"{name} matches {condition.regex!r}"
    return f"{name} is {'absent' if condition.present is False else 'present'}"


def shown_in_words(kind: str, condition: Condition) -> str:
    """As ``in_words``, without a value that may be a secret."""
    if condition.equal is not None and tells_of_a_secret(condition.name):
        condition = evolve(condition, equal=MASK)
    elif condition.regex is not None and tells_of_a_secret(condition.name):
        condition = evolve(condition, regex=MASK)
    return in_words(kind, condition)


def _of_query(query: bytes) -> Pairs:
    """Names and values, decoded as forms are (WHATWG URL §5.1)."""
    found: Pairs = []
    for pair in query[1:].split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            found.append((_decoded(name), _decoded(value)))
    return found


def _decoded(text: bytes) -> bytes:
    if text.find(b"+") >= 0:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text) if text.find(b"%") >= 0 else text


def _of_cookies(headers: Pairs) -> Pairs:
    """Names and values as sent, of all fields (RFC 6265 §5.4; HTTP/2 may divide them)."""
    found: Pairs = []
    for field, value in headers:
        if field == b"cookie":
            for pair in value.split(b";"):
                name, mark, content = pair.partition(b"=")
                if mark:
                    found.append((name.strip(b" \t"), content.strip(b" \t")))
    return found
