"""All kinds of credentials that one configuration takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from twisted.internet.defer import Deferred

from apigw.contract.principal import Principal
from apigw.policy.auth.method import Method
from apigw.policy.auth.stage import Accepted
from apigw.wire.request import Request


class Authenticator:
    """``methods`` are in the order in which a request's credentials are looked for."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = tuple(methods)
        self._of = {provider: method for method in methods for provider in method.providers()}

    def accepted(self, providers: Collection[str] | None) -> tuple[Accepted, ...]:
        """What a route takes that names ``providers``, or ``None`` for all."""
        found = list(self._accepted(providers))
        challenges = [method.challenge(some) for method, some in found]
        return tuple(
            Accepted(method, some, [each for at, each in enumerate(challenges) if at != index])
            for index, (method, some) in enumerate(found)
        )

    def _accepted(self, providers: Collection[str] | None) -> Iterator[tuple[Method, frozenset[str] | None]]:
        for method in self.methods:
            its = method.providers()
            some = its if providers is None else its.intersection(providers)
            if some:
                yield method, None if some == its else some

    def again(self, request: Request, principal: Principal, now: float) -> Principal | Deferred[Principal] | None:
        """Who has sent a request that was let in as ``principal``: as ``Method.again``.

        Its provider decides, and no other is shown the credential. If it exists no more, whoever knows that does.
        """
        method = self._of.get(principal.provider)
        providers = None if method is None else frozenset([principal.provider])
        for each in self.methods if method is None else (method,):
            found = each.again(each.sent(request), now, providers)
            if found is not None:
                return found
        return None

    def take_over(self, previous: Authenticator) -> None:
        """Take from ``previous``, which was in use until now, what it remembers of callers and is still true."""
        for method in self.methods:
            for before in {previous._of[provider] for provider in method.providers() if provider in previous._of}:
                method.take_over(before)
