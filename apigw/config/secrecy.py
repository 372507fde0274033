"""Which values of headers, query parameters and cookies are shown to nobody: those whose names tell of secrets."""

from __future__ import annotations

import re

MASK = "…"
"""Stands for what is not shown."""

_SECRET = re.compile(
    r"auth(?!ors?$)|cookie|key|token|sess|signature|secret|passw|pwd|credential|^(code|sig|sid|pin|otp|ticket)$",
    re.IGNORECASE,
)


def tells_of_a_secret(name: str) -> bool:
    """Whether a header, a query parameter or a cookie of this name may hold a secret."""
    return _SECRET.search(name) is not None
