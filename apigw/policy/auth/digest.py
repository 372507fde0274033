# Compiled: see docs/decisions/compiled.md
"""By what a token is known where it must not be kept: in denials, and in the audit log."""

from __future__ import annotations

from hashlib import sha256


def token_digest(token: bytes) -> str:
    """The hash of what of a token is signed. Signatures can be changed and still be valid (ECDSA: s and n - s)."""
    signed, dot, _ = token.rpartition(b".")
    return sha256(signed if dot and signed.count(b".") == 1 else token).hexdigest()
