# Compiled: see docs/decisions/compiled.md
"""Bearer tokens of both kinds: those that the gateway verifies itself, and those that it asks about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from twisted.internet.defer import Deferred

from apigw.contract.principal import Principal
from apigw.policy.auth.introspection.opaque import Opaque
from apigw.policy.auth.jwt.tokens import MALFORMED, Tokens, token_in, too_large
from apigw.policy.auth.method import Method, Providers
from apigw.policy.auth.refusals import BEARER
from apigw.wire.request import Request

_FORM = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750 §2.1."""


class Bearer(Method):
    """A token goes to ``tokens`` if one of its verifiers could take it, by its issuer; else the provider of the route
    among ``opaque`` is asked. The configuration sees to it that a route has one at most.
    """

    def __init__(self, tokens: Tokens, opaque: Sequence[Opaque], largest: int) -> None:
        super().__init__(b"authorization")
        self._tokens = tokens
        self._opaque = tuple(opaque)
        self._largest = largest

    def providers(self) -> frozenset[str]:
        return self._tokens.providers().union([each.name for each in self._opaque])

    def challenge(self, providers: Providers) -> bytes:
        return BEARER

    def sent(self, request: Request) -> list[bytes]:
        return self.with_scheme(b"bearer", request)

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        known = self._tokens.remembered(sent, now)
        if known is not None or len(sent) != 1:
            return known
        raw = token_in(sent)
        if raw:
            digest = sha256(raw).digest()
            for each in self._opaque:
                known = each.remembered(digest, now)
                if known is not None:
                    return known
        return None

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | Deferred[Principal] | None:
        raw = token_in(sent)
        if raw is None:
            return None
        for each in self._opaque:
            if (providers is None or each.name in providers) and not self._tokens.could_take(raw):
                if len(raw) > self._largest:
                    raise too_large(self._largest)
                if _FORM.fullmatch(raw) is None:
                    raise MALFORMED()
                digest = sha256(raw).digest()
                return each.remembered(digest, now) or each.verify(raw, digest, now, caller)
        return self._tokens.verify(sent, now, providers, caller)

    def take_over(self, previous: Method) -> None:
        """What was remembered goes on to hold where a provider has not changed. Where other JWTs are verified here,
        the servers are asked anew: some that they know may be among these."""
        if isinstance(previous, Tokens):
            self._tokens.take_over(previous)
        elif previous is not self and isinstance(previous, Bearer):
            self._tokens.take_over(previous._tokens)
            if self._tokens.issuers() != previous._tokens.issuers():
                return
            for each in self._opaque:
                for before in previous._opaque:
                    same: object = before.provider
                    if each.provider == same:
                        each.take_over(before)
