# Compiled: see docs/decisions/compiled.md
"""Path patterns: parsing, matching, and the overlap of two patterns.

A path is a list of segments, cut at each ``/`` after the first; a trailing slash is one more, empty segment. A segment
of a pattern is a literal, ``:name`` for any non-empty segment, or at the end ``*`` for the rest. All comparisons are of
percent-decoded bytes (RFC 3986 §2.1).
"""

from __future__ import annotations

from functools import lru_cache
from re import compile as regex
from typing import Literal
from urllib.parse import unquote_to_bytes

from attrs import frozen

_NAME = regex(r"[A-Za-z_][A-Za-z0-9_-]*")
_BROKEN_ESCAPE = regex(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = regex(r"[\x00-\x1f\x7f-\x9f]")
_SPACE = regex(r"\s")
_PARAMETER = regex(r"\{([A-Za-z_][A-Za-z0-9_-]*)(?::.*)?\}|<(?:[a-z]+:)?([A-Za-z_][A-Za-z0-9_-]*)>|\[([A-Za-z_]\w*)\]")
"""Parameters in the syntax of other programs: OpenAPI and Spring, Flask, Next.js."""
_EXPRESSION = regex(r"\^|\||\.\*|\[[^\]]*\][+*?{]|\(\?")

REMEMBERED = 1 << 14
"""Patterns that were parsed last. While a configuration is checked and made ready each is asked for a dozen times; half
a KiB each."""


@frozen
class Pattern:
    """A parsed path pattern.

    ``segments`` holds decoded literals and ``None`` for each parameter, without the final ``*``; ``names`` are the
    parameters from left to right; with ``wildcard`` at least one more segment follows, which may be empty.
    """

    text: str
    segments: tuple[bytes | None, ...]
    names: tuple[str, ...]
    wildcard: bool

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse a pattern such as ``/users/:id`` or ``/files/*``.

        Raises ``ValueError`` if no request could match it, with a sentence fragment that follows the pattern.
        """
        return _parsed(text)

    def __str__(self) -> str:
        return self.text

    @property
    def shape(self) -> tuple[tuple[bytes | None, ...], bool]:
        """A key that is equal for patterns that match the same paths: it ignores the names of parameters."""
        return self.segments, self.wildcard

    @property
    def rank(self) -> tuple[int, ...]:
        """The lower is the more specific, of patterns that match one path."""
        return (*(1 if segment is None else 0 for segment in self.segments), *([2] if self.wildcard else []))

    def begins_with(self, prefix: Pattern) -> bool:
        """Whether its first segments are those of ``prefix``, which has no ``*``."""
        return self.segments[: len(prefix.segments)] == prefix.segments

    def matches(self, path: bytes) -> bool:
        """Whether the pattern matches ``path``, which is percent-encoded as sent."""
        depth = len(self.segments)
        pieces = path.split(b"/", depth + 1)
        if len(pieces) != depth + 1 + self.wildcard:
            return False
        for wanted, piece in zip(self.segments, pieces[1:], strict=False):
            if wanted is None:
                if not piece:
                    return False
            elif piece.find(b"%") >= 0:
                # A segment shrinks to a third at most: what is longer is not worth decoding.
                if len(piece) > 3 * len(wanted) or wanted != unquote_to_bytes(piece):
                    return False
            elif wanted != piece:
                return False
        return True

    def parameters(self, path: bytes) -> dict[str, bytes]:
        """The values of the parameters in a matching path, decoded. The rest of the path has the name ``*``."""
        pieces = path.split(b"/", len(self.segments) + 1)[1:]
        values = [piece for wanted, piece in zip(self.segments, pieces, strict=False) if wanted is None]
        captured = dict(zip(self.names, map(unquote_to_bytes, values), strict=True))
        if self.wildcard:
            captured["*"] = unquote_to_bytes(pieces[-1])
        return captured

    def captured(self, path: bytes) -> dict[str, bytes]:
        """``parameters`` as sent, not decoded. The rest of the path, without the slash before it, is ``rest``, unless
        a parameter has that name."""
        pieces = path.split(b"/", len(self.segments) + 1)[1:]
        values = [piece for wanted, piece in zip(self.segments, pieces, strict=False) if wanted is None]
        captured = dict(zip(self.names, values, strict=True))
        if self.wildcard:
            captured.setdefault("rest", pieces[-1])
        return captured


@lru_cache(REMEMBERED)
def _parsed(text: str) -> Pattern:
    if text.startswith(("~", "^")):
        raise ValueError(
            "begins as a regular expression: write :name for any one segment, or * at the end for the rest"
        )
    if not text.startswith("/"):
        raise ValueError("does not begin with /")
    *inner, last = text[1:].split("/")
    if "" in inner:
        raise ValueError("has an empty segment (//)")
    wildcard = last == "*"
    segments: list[bytes | None] = []
    names: list[str] = []
    for segment in inner if wildcard else [*inner, last]:
        if not segment.startswith(":"):
            segments.append(_literal(segment))
            continue
        name = segment[1:]
        if not _NAME.fullmatch(name):
            raise ValueError("has a parameter that is not : and a name of letters, digits, _ and -")
        if name in names:
            raise ValueError(f"has the parameter {segment} twice")
        segments.append(None)
        names.append(name)
    return Pattern(text, tuple(segments), tuple(names), wildcard)


def _literal(segment: str) -> bytes:
    """The decoded segment. Raises ``ValueError`` where no request that is let in could carry it."""
    _refuse_other_notations(segment)
    if segment == "*":
        raise ValueError("has a * that is not its last segment (write :name for one segment)")
    if "*" in segment:
        raise ValueError("has a * that is not alone in its segment (write %2A for the character)")
    for character, name in (("?", "a query (?)"), ("#", "a fragment (#)"), ("\\", "a backslash")):
        if character in segment:
            raise ValueError(f"has {name}: a path has none")
    if _BROKEN_ESCAPE.search(segment):
        raise ValueError("has a % that is not followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(segment.encode())
        text = decoded.decode()
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text") from None
    except UnicodeDecodeError:
        raise ValueError("has percent-encoded bytes that are not UTF-8") from None
    if _CONTROL.search(text):
        raise ValueError("has a control character")
    if _SPACE.search(segment):
        raise ValueError("has white space (write %20)")
    if "/" in text or "\\" in text:
        raise ValueError("has an encoded slash or backslash: requests with one are refused")
    if text.partition(";")[0] in (".", ".."):
        raise ValueError("has a . or .. segment: requests with one are refused")
    return decoded


def _refuse_other_notations(segment: str) -> None:
    """What other programs call a pattern would be a literal here, that no client ever asks for."""
    if segment == "**":
        raise ValueError("has **: write * as the last segment, which matches the rest, however many segments it has")
    found = _PARAMETER.fullmatch(segment)
    if found is not None:
        name = found[1] or found[2] or found[3]
        raise ValueError(f"has {segment}: a parameter is written :{name}")
    if _EXPRESSION.search(segment):
        raise ValueError("has a regular expression: write :name for any one segment, or * at the end for the rest")
    if any(mark in segment for mark in "{}<>"):
        raise ValueError("has braces or angle brackets: a parameter is a whole segment, written :name")


def overlaps(limit: Pattern, route: Pattern) -> Literal["always", "sometimes", "never"]:
    """Whether ``limit`` matches "always", "never" or "sometimes" the paths that ``route`` matches."""
    m, n = len(limit.segments), len(route.segments)
    if limit.wildcard:
        if not route.wildcard and n <= m:
            return "never"
        covered = n >= m
    else:
        if m <= n if route.wildcard else m != n:
            return "never"
        covered = not route.wildcard
    for ours, theirs in zip(limit.segments, route.segments, strict=False):
        if ours == theirs:
            continue
        if ours is None:
            if not theirs:
                return "never"
        elif theirs is None and ours:
            covered = False
        else:
            return "never"
    return "always" if covered else "sometimes"
