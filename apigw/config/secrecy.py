"""Which values of headers, query parameters and cookies are shown to nobody: those whose names tell of secrets; and
what of URLs."""

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


_USERINFO = re.compile(r"(?<=://).*@", re.DOTALL)
_ADDRESS = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")
_PARAMETER = re.compile(r"(?<=[?&])([^=&#]+)=[^&#{][^&#]*")


def masked_in_url(text: str) -> str:
    """``text`` without what may be a secret in a URL: the user's name and password, and values in the query, which a
    path may have, too. What is in braces is none."""
    text = _USERINFO.sub(f"{MASK}@", text)
    return _PARAMETER.sub(_masked, text) if _ADDRESS.match(text) else text


def _masked(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}={MASK}" if tells_of_a_secret(parameter[1]) else parameter[0]
