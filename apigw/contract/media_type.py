# Compiled: see docs/decisions/compiled.md
"""What the body of a request or an answer is, by its ``Content-Type`` (RFC 9110 §8.3)."""

from __future__ import annotations

import re
from typing import Final, final

_CHARSETS: Final = re.compile(r"charset[^=]*(?:=\s*\"?([^\s\";]*)|\Z)").finditer
"""Up to the end where no value follows: so a text of that word alone is read once, and not from each of them on."""


@final
class MediaType:
    """``name`` is such as ``text/html``, without parameters; ``charsets`` are those that any reader could find in them,
    ``charset*`` too. All in lower case; empty where there is no ``Content-Type``, or more than one."""

    def __init__(self, fields: list[str]) -> None:
        name, _, parameters = (fields[0] if len(fields) == 1 else "").lower().partition(";")
        self.name: str = name.strip()
        self.charsets: frozenset[str] = frozenset(found[1] for found in _CHARSETS(parameters) if found[1] is not None)

    @property
    def is_json(self) -> bool:
        """``application/json``, or ``application/…+json``."""
        name = self.name
        return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))
