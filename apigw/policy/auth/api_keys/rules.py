"""Checks of API keys in the configuration."""

from __future__ import annotations

import re

from apigw.wire.headers import HOP_BY_HOP

_TAKEN = frozenset(
    {b"authorization", b"cookie", b"set-cookie", b"host", b"expect", b"via", b"forwarded", b"range", b"origin"}
)
_TAKEN_PREFIXES = (b"x-forwarded-", b"x-user-", b"x-auth-", b"x-request-", b"x-real-", b"content-", b"accept", b"sec-")
_FORM = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


def check_header(name: str) -> None:
    """A header for API keys: one that has no other meaning."""
    if not _FORM.fullmatch(name):
        raise ValueError("is not the name of a header: up to 64 letters, digits and -, with a letter first")
    plain = name.lower().encode("ascii")
    if plain in _TAKEN or plain in HOP_BY_HOP or plain.startswith(_TAKEN_PREFIXES):
        raise ValueError("has another meaning: choose a header of its own, such as X-API-Key")
