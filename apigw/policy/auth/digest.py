# Compiled: see docs/decisions/compiled.md
"""By what a token is known where it must not be kept: in denials, and in the audit log."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from hashlib import sha256


def token_digest(token: bytes) -> str:
    """The hash of what of a JWT is signed; of any other token that of all of it, as its parts may be those of many.

    Signatures can be changed and still be valid (ECDSA: s and n - s).
    """
    signed, dot, _ = token.rpartition(b".")
    is_jwt = dot and signed.count(b".") == 1 and _begins_an_object(signed[: signed.find(b".")])
    return sha256(signed if is_jwt else token).hexdigest()


def _begins_an_object(part: bytes) -> bool:
    """Whether it may be the header of a JWT: in base64url, a JSON object."""
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4)).lstrip().startswith(b"{")
    except ValueError:
        return False
