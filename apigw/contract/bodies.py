# Compiled: see docs/decisions/compiled.md
"""What a policy sees of bodies. Nothing of them is looked at on routes without such hooks."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from apigw.contract.exchange import Exchange


class BodyHook:
    """Gets the pieces of a request's body, or of the body of a service's answer, on their way.

    ``changes``: whether it may change them. Then the gateway frames the body anew.
    """

    changes: bool

    def passes(self, exchange: Exchange) -> bool:
        """Whether it does not see this body at all. Asked once, before the first piece."""
        raise NotImplementedError

    def piece(self, exchange: Exchange, data: bytes, last: bool) -> bytes | Deferred[bytes]:
        """What goes on in place of ``data``, or a Deferred of it; the sender is paused meanwhile.

        ``last`` is True in the last call, and only then. Raises a ``GatewayError``, or fails with one, to end the
        exchange. The Deferred is cancelled with the exchange.
        """
        raise NotImplementedError
