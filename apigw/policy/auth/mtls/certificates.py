# Compiled: see docs/decisions/compiled.md
"""Authentication by the client's certificate in the TLS handshake (RFC 5246 §7.4.6, RFC 8446 §4.4.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from apigw.contract.principal import Principal
from apigw.errors import Unauthorized
from apigw.policy.auth.method import Method, Providers
from apigw.policy.auth.mtls.authorities import Authorities, read_shown
from apigw.policy.auth.mtls.names import CHALLENGE
from apigw.policy.auth.refusals import Refusal
from apigw.wire.request import Request

REMEMBERED = 4096
"""Callers. Whoever is not remembered costs a tenth of a millisecond."""

AUTHORITY = Refusal("authority", "the certificate is not of an authority that the route takes")
MALFORMED = Refusal("malformed", "the certificate cannot be read")


class Certificates(Method):
    """All providers of client certificates, in the order of the configuration.

    A credential is what the connection keeps of the handshake: a digest of all certificates that the client has shown,
    and these. Who it was that showed the same before is remembered by the digest.
    """

    def __init__(self, providers: Sequence[Authorities]) -> None:
        super().__init__(b"")
        self._of = tuple(providers)
        self._seen: OrderedDict[bytes, Principal] = OrderedDict()

    def sent(self, request: Request) -> list[bytes]:
        shown: list[bytes] = getattr(request.stream.transport, "certificates", [])
        return shown

    def providers(self) -> frozenset[str]:
        return frozenset([each.name for each in self._of])

    def challenge(self, providers: Providers) -> bytes:
        return CHALLENGE

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        if not sent:
            return None
        principal = self._seen.get(sent[0])
        if principal is None or not principal.begins <= now < principal.expires:
            return None
        self._seen.move_to_end(sent[0])
        return principal

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | None:
        if not sent:
            return None
        try:
            principal = self._verified(sent, now, providers)
        except Unauthorized:
            raise
        except Exception:  # of libraries that read what others have made: whatever it is, nobody is let in
            raise MALFORMED.by(CHALLENGE) from None
        if principal is None:
            raise AUTHORITY.by(CHALLENGE)
        self._seen[sent[0]] = principal
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return principal

    def _verified(self, sent: Sequence[bytes], now: float, providers: Providers) -> Principal | None:
        """By the first provider that has its authority."""
        own, *others = read_shown(sent[1:])
        for each in self._of:
            if providers is None or each.name in providers:
                principal: Principal | None = each.principal(own, others, now)
                if principal is not None:
                    return principal
        return None

    def take_over(self, previous: Method) -> None:
        """What was remembered goes on to hold where no provider has changed."""
        if previous is not self and isinstance(previous, Certificates) and previous._stamps() == self._stamps():
            self._seen, previous._seen = previous._seen, OrderedDict()

    def _stamps(self) -> list[object]:
        return [each.stamp for each in self._of]
