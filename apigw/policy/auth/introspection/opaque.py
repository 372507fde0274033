# Compiled: see docs/decisions/compiled.md
"""Tokens that only their issuer understands: what it says of them, remembered for a while (RFC 7662)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apigw.contract.address_groups import network
from apigw.contract.principal import Principal
from apigw.contract.shared_calls import SharedCalls
from apigw.errors import AuthUnavailable, Unauthorized
from apigw.policy.auth.authorization import as_demanded
from apigw.policy.auth.introspection.model import IntrospectionProvider
from apigw.policy.auth.introspection.server import Said, Server, unavailable
from apigw.policy.auth.jwt.claims import ClaimRules, allowed
from apigw.policy.auth.refusals import Refusal

REMEMBERED = 16_384
REMEMBERED_BYTES = 16 * 1024 * 1024
"""Tokens that are active, and bytes of what the server said of them."""
REFUSED = 4096
REFUSED_FOR = 5.0
"""Tokens that are not, and for how many seconds. They have a place of their own: whoever invents tokens pushes out no
good ones."""

INACTIVE = Refusal("inactive", "the token is not active")
WRONG_TYPE = Refusal("type", "the token is not of the type that is taken")


class Known:
    """An active token: ``until`` in seconds of the reactor, ``ends`` is its ``exp``, in Unix seconds."""

    def __init__(self, principal: Principal, until: float, ends: float, size: int) -> None:
        self.principal = principal
        self.until = until
        self.ends = ends
        self.size = size


class Opaque:
    """The tokens of one provider. They are kept by their SHA-256 digests alone. ``seconds`` is monotonic."""

    def __init__(self, provider: IntrospectionProvider, server: Server, seconds: Callable[[], float]) -> None:
        self.name = provider.name
        self.provider = provider
        self._server = server
        self._seconds = seconds
        self._cache = provider.cache
        self._type = (provider.token_type or "").lower()
        self._rules = ClaimRules(
            provider.name,
            provider.issuer,
            frozenset(provider.audience),
            user_claim=provider.user_claim,
            roles_claim=provider.roles_claim,
            claims=as_demanded(provider.claims),
            roles_allowed=allowed(provider.roles_allowed),
            needs_expiry=False,
        )
        self._seen: OrderedDict[bytes, Known] = OrderedDict()
        self._seen_bytes = 0
        self._refused: OrderedDict[bytes, tuple[Refusal, float]] = OrderedDict()
        self._asking = SharedCalls()

    def remembered(self, digest: bytes, now: float) -> Principal | None:
        known = self._seen.get(digest)
        if known is None or now >= known.ends or self._seconds() >= known.until:
            return None
        self._seen.move_to_end(digest)
        return known.principal

    def verify(self, token: bytes, digest: bytes, now: float, caller: bytes) -> Deferred[Principal]:
        """Ask, unless the answer is known, or the same was asked and is not answered yet."""
        refused = self._refused.get(digest)
        if refused is not None:
            if self._seconds() < refused[1]:
                raise refused[0]()
            del self._refused[digest]
        asking = self._asking.join(digest, lambda: self._ask(token, digest, now, caller))
        return asking.addCallbacks(_told, _failed)

    def _ask(self, token: bytes, digest: bytes, now: float, caller: bytes) -> Deferred[Principal | Refusal]:
        return self._server.about(token, network(caller)).addCallback(self._judged, digest, now)

    def _judged(self, said: Said | None, digest: bytes, now: float) -> Principal | Refusal:
        self._forget(digest)
        try:
            principal = self._principal(said, now)
        except Unauthorized as error:
            refusal = Refusal(error.reason or "", error.detail)
            self._refused[digest] = refusal, self._seconds() + REFUSED_FOR
            if len(self._refused) > REFUSED:
                self._refused.popitem(last=False)
            return refusal
        assert said is not None
        self._remember(digest, principal, said)
        return principal

    def _principal(self, said: Said | None, now: float) -> Principal:
        if said is None:
            raise INACTIVE()
        members = {name: value for name, value in said.members.items() if value is not None}
        if self._type and str(members.get("token_type", "")).lower() != self._type:
            raise WRONG_TYPE()
        principal: Principal = self._rules.principal(members, now)
        principal.by_token = True
        principal.document = said.document
        return principal

    def _remember(self, digest: bytes, principal: Principal, said: Said) -> None:
        if not self._cache:
            return
        ends = said.members.get("exp")
        known = Known(
            principal,
            self._seconds() + self._cache,
            float(ends) if isinstance(ends, (int, float)) else math.inf,
            len(said.document),
        )
        self._seen[digest] = known
        self._seen_bytes += known.size
        while len(self._seen) > REMEMBERED or self._seen_bytes > REMEMBERED_BYTES:
            self._seen_bytes -= self._seen.popitem(last=False)[1].size

    def _forget(self, digest: bytes) -> None:
        known = self._seen.pop(digest, None)
        if known is not None:
            self._seen_bytes -= known.size

    def take_over(self, previous: Opaque) -> None:
        """``previous`` is the same provider in the configuration before: what is remembered goes on to hold."""
        self._seen, previous._seen = previous._seen, OrderedDict()
        self._seen_bytes, previous._seen_bytes = previous._seen_bytes, 0


def _told(judged: Principal | Refusal) -> Principal:
    if isinstance(judged, Refusal):
        raise judged()
    return judged


def _failed(failure: Failure) -> NoReturn:
    """An error for each request: what refuses one may add fields to it."""
    error = failure.value
    assert error is not None
    raise unavailable() if isinstance(error, (AuthUnavailable, CancelledError)) else error
