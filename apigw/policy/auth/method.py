# Compiled: see docs/decisions/compiled.md
"""The kinds of credentials: what each must be able to do for the stage (docs/decisions/credentials.md)."""

from __future__ import annotations

from collections.abc import Sequence, Set

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred

from apigw.contract.principal import Principal
from apigw.wire.request import Request

Providers = Set[str] | None
"""The names of the providers that a route takes; ``None`` for all."""


def after_scheme(value: bytes, scheme: bytes) -> bytes | None:
    """What follows the scheme in a value of ``Authorization``; ``None`` for another than ``scheme`` (lower case)."""
    written, _, rest = value.partition(b" ")
    return rest.strip(b" ") if written.lower() == scheme else None


@mypyc_attr(allow_interpreted_subclasses=True)
class Method:
    """One kind of credentials, such as bearer tokens, with all providers of that kind in one configuration.

    A credential is the list of values in which a request carries it: those of the header ``field`` (lower case).
    """

    def __init__(self, field: bytes) -> None:
        self.field = field

    def sent(self, request: Request) -> list[bytes]:
        """The credential of a request; empty if it has none of this kind."""
        field = self.field
        return [value for name, value in request.headers if name == field]

    def with_scheme(self, scheme: bytes, request: Request) -> list[bytes]:
        """As ``sent``, of ``Authorization`` fields; empty for another scheme than that one (lower case)."""
        found = Method.sent(self, request)
        if len(found) == 1 and found[0].partition(b" ")[0].lower() != scheme:
            return []
        return found

    def remembered(self, sent: Sequence[bytes], now: float) -> Principal | None:
        """Who sends this, if it was verified before and still holds at ``now`` (Unix seconds). Never raises."""
        return None

    def authenticate(self, sent: Sequence[bytes], now: float) -> Principal | Deferred[Principal] | None:
        """``remembered``, or else ``verify`` by any provider."""
        known = self.remembered(sent, now)
        return self.verify(sent, now) if known is None else known

    def again(self, sent: Sequence[bytes], now: float, providers: Providers) -> Principal | Deferred[Principal] | None:
        """For tunnels and streams: as ``authenticate``, by one of ``providers``, of what was good when they
        began."""
        known = self.remembered(sent, now)
        if known is not None and (providers is None or known.provider in providers):
            return known
        return self.verify(sent, now, providers)

    def verify(
        self, sent: Sequence[bytes], now: float, providers: Providers = None, caller: bytes = b""
    ) -> Principal | Deferred[Principal] | None:
        """Who sends this, by one of ``providers``; ``None`` if it is no credential of this kind.

        ``caller`` is the client's address, for kinds that bound what each may cost.

        Returns a ``Deferred`` only where it must wait; cancel it when the caller leaves. Raises, or fires with,
        ``Unauthorized`` for a bad credential, and another ``GatewayError`` while none can be verified.
        """
        raise NotImplementedError

    def providers(self) -> frozenset[str]:
        """The names of all of its providers."""
        raise NotImplementedError

    def challenge(self, providers: Providers) -> bytes:
        """What ``WWW-Authenticate`` says on a route that takes these (RFC 9110 §11.6.1)."""
        raise NotImplementedError

    def take_over(self, previous: Method) -> None:
        """``previous`` was in use until now, and had one of the same providers: take over what it remembers."""
