"""The admin token: required for writes on the admin listener."""

from __future__ import annotations

LEAST, MOST = 16, 4096
"""Minimum and maximum length in characters."""


def parse(data: bytes) -> bytes:
    """The token in a file, without white space around it.

    Raises ``ValueError`` if a header cannot contain it, or it is too short. The message is a sentence fragment that
    follows the name of the file.
    """
    token = data.strip()
    if not LEAST <= len(token) <= MOST or not all(0x21 <= byte <= 0x7E for byte in token):
        raise ValueError(f"is not a token: it must have {LEAST} to {MOST} printable ASCII characters without spaces")
    return token
