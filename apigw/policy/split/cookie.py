# Compiled: see docs/decisions/compiled.md
"""The cookie by which a client stays with its service: a position and its signature.

It is as short as it can be, and of fixed length, so that whatever else comes under its name is refused at once.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final, final

from apigw.wire.headers import Headers

POSITIONS: Final = 10_000
"""Different positions, of equal shares. They are few, so that a position identifies nobody."""
_DIGITS: Final = 4
_SIGNATURE: Final = 16
"""Bytes of the signature: HMAC-SHA256 cut to 128 bits (RFC 2104 §5)."""
_LENGTH: Final = _DIGITS + 1 + 22
MAX_AGE: Final = 365 * 24 * 3600
"""Seconds. Browsers cut it to 400 days at most."""


@final
class Cookie:
    """The cookie ``name``. The first of ``secrets`` signs it; all are accepted."""

    def __init__(self, name: bytes, secrets: Sequence[bytes]) -> None:
        self._name = name
        self._purpose = b"apigw split\0" + name + b"\0"
        self._secrets = tuple(secrets)

    def value(self, position: int) -> bytes:
        digits = b"%04d" % position
        return digits + b"." + self._signature(digits, self._secrets[0])

    def position_in(self, value: bytes) -> int | None:
        """The position in a cookie's value; None if it is not one that was signed here."""
        digits = value[:_DIGITS]
        if len(value) != _LENGTH or value[_DIGITS : _DIGITS + 1] != b"." or not digits.isdigit():
            return None
        for secret in self._secrets:
            if compare_digest(value[_DIGITS + 1 :], self._signature(digits, secret)):
                return int(digits)
        return None

    def set(self, position: int, secure: bool) -> bytes:
        """The value of ``Set-Cookie`` (RFC 6265 §4.1.1)."""
        end = b"; Secure" if secure else b""
        return b"%b%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b" % (
            self._name + b"=",
            self.value(position),
            MAX_AGE,
            end,
        )

    def take(self, headers: Headers) -> tuple[int | None, Headers]:
        """The position of the first valid cookie, and ``headers`` without any cookie of this name."""
        own = self._name
        if not any(name == b"cookie" and value.find(own) >= 0 for name, value in headers):
            return None, headers
        position: int | None = None
        found = False
        left: Headers = []
        for name, value in headers:
            if name == b"cookie":
                others = []
                for pair in value.split(b";"):
                    pair = pair.strip(b" \t")
                    key, _, held = pair.partition(b"=")
                    if key.rstrip(b" \t") != own:  # services take spaces away, too (RFC 6265 §5.2)
                        others.append(pair)
                        continue
                    found = True
                    if position is None:
                        position = self.position_in(held)
                if not others:
                    continue
                value = b"; ".join(others)
            left.append((name, value))
        return position, left if found else headers

    def _signature(self, digits: bytes, secret: bytes) -> bytes:
        signature = digest(secret, self._purpose + digits, "sha256")[:_SIGNATURE]
        return urlsafe_b64encode(signature).rstrip(b"=")
