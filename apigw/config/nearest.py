"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def hint(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'methods'?``, or the known names if there are up to 16, or nothing. Ends a sentence."""
    names = sorted(known)
    return meant(word, names, cutoff) or (f"; known are {', '.join(names)}" if 0 < len(names) <= 16 else "")


def meant(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'methods'?``, or nothing. Ends a sentence that has the known names."""
    names = sorted(known)
    if any(letter.isalpha() for letter in word):
        short = word[:80]
        near = get_close_matches(short, names, 1, cutoff) or get_close_matches(short.lower(), names, 1, cutoff)
        if near:
            return f"; did you mean {near[0]!r}?"
    return ""
