"""The token that a write on the admin listener must bring."""

from __future__ import annotations

LEAST, MOST = 16, 4096
"""Characters."""


def parse(data: bytes) -> bytes:
    """What a file holds, without the white space around it.

    Raises ``ValueError`` for what no header could carry, or can be guessed: the end of a sentence that begins with the
    file's name.
    """
    token = data.strip()
    if not LEAST <= len(token) <= MOST or not all(0x21 <= byte <= 0x7E for byte in token):
        raise ValueError(f"is not a token: it must have {LEAST} to {MOST} printable ASCII characters without spaces")
    return token
