# Compiled: see docs/decisions/compiled.md
"""Why credentials are refused: the 401 of each reason, with its challenge."""

from __future__ import annotations

from attrs import frozen

from apigw.errors import Unauthorized

BEARER = b'Bearer realm="apigw"'


@frozen
class Refusal:
    """A reason to refuse credentials: ``reason`` is for metrics, ``detail`` for the caller. Calling it returns the 401.

    ``detail`` and ``error`` contain no quotes.
    """

    reason: str
    detail: str
    error: str = "invalid_token"

    def __call__(self) -> Unauthorized:
        """For a token: with the parameters of RFC 6750 §3."""
        challenge = b'%s, error="%s", error_description="%s"' % (BEARER, self.error.encode(), self.detail.encode())
        return Unauthorized(self.detail, [(b"www-authenticate", challenge)], self.reason)

    def by(self, challenge: bytes) -> Unauthorized:
        """For credentials of another kind, whose challenges have no parameter for an error."""
        return Unauthorized(self.detail, [(b"www-authenticate", challenge)], self.reason)


SEVERAL = Refusal("several", "the Authorization header occurs more than once", "invalid_request")
EXPIRED = Refusal("expired", "the token has expired")
WRONG_PROVIDER = Refusal("provider", "the route does not take credentials of this provider")
